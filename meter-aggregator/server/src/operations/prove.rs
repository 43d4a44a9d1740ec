//! The proof of a line of an invoice: which requests it comes from.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime, Time, format_description::well_known::Rfc3339};
use weir_meter_core::{hour::Hour, meter::Meter, stripe::TransformQuantity};
use weir_meter_store::ledger::{Behind, Proof, Proved};
use weir_wire::ids::TenantId;

use super::{Refused, limit};
use crate::{
    api::Parts,
    stripe::{MeterError, StripeError},
};

/// Which line.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prove {
    /// `in_.../il_...`, a line of an invoice of Stripe's, or `TENANT/METER/TIME`, the
    /// time being an hour (`2026-11-23T14`), a day or a month in UTC.
    pub line: String,
    /// How many requests are listed at the most; all are counted.
    pub limit: Option<u32>,
}

/// What was proved.
#[derive(Debug, Serialize)]
pub struct Proven {
    /// Whose.
    pub tenant: String,
    /// On which meter.
    pub meter: String,
    /// From when on, RFC 3339.
    pub from: String,
    /// Until when, and without it.
    pub to: String,
    /// The quantity of the invoice's line, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stripe: Option<i64>,
    /// What the ledger has.
    #[serde(flatten)]
    pub proved: Proved,
    /// The requests behind it, the first of them, in the order of time.
    pub behind: Vec<Behind>,
    /// Whether all of it holds.
    pub holds: bool,
}

impl Prove {
    /// Tells how many lines of the journal are walked, of how many.
    pub async fn perform(
        self,
        parts: &Parts,
        progress: impl Fn(u64, u64) + Send + 'static,
    ) -> Result<Proven, Refused> {
        let listed_max = limit(self.limit)? as usize;
        let (proof, billed) = of_line(parts, &self.line).await?;
        parts.books.book_all().await?;
        let about = proof.clone();
        let ledger = parts.books.with(|ledger| Ok(ledger.another())).await??;
        let ledger = Arc::new(Mutex::new(ledger));
        let (mut proved, behind) = super::blocking(move || {
            let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let mut behind = Vec::new();
            let list = |one: Behind| {
                if behind.len() < listed_max {
                    behind.push(one);
                }
            };
            let proved = ledger.prove(&proof, list, progress)?;
            Ok((proved, behind))
        })
        .await?;
        // Such as of a tenant that was misspelt.
        if (proved.lines, proved.total, proved.at_stripe) == (0, 0, 0) {
            let nothing = "the ledger has nothing of it";
            proved.problems.push(nothing.to_owned());
        }
        let problem = billed.and_then(|billed| billed.problem(proved.at_stripe));
        proved.problems.extend(problem);
        Ok(Proven {
            tenant: about.tenant.to_string(),
            meter: about.meter.to_string(),
            from: text(about.from),
            to: text(about.to),
            stripe: billed.map(|billed| billed.quantity),
            holds: proved.problems.is_empty(),
            proved,
            behind,
        })
    }
}

fn text(hour: Hour) -> String {
    OffsetDateTime::from_unix_timestamp(hour.start_s())
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// What an invoice says of the line.
#[derive(Debug, Clone, Copy)]
struct Billed {
    quantity: i64,
    transform: Option<TransformQuantity>,
    /// It begins or ends inside an hour, of which the ledger has no parts.
    has_part_hours: bool,
}

impl Billed {
    /// What does not fit, if so.
    fn problem(self, at_stripe: i64) -> Option<String> {
        // Less than nothing is billed as nothing.
        let used = at_stripe.max(0);
        let paid = self.transform.and_then(|transform| transform.of(used));
        if self.quantity == used || Some(self.quantity) == paid {
            return None;
        }
        let why = if self.has_part_hours {
            "; its period begins or ends inside an hour, which may be why"
        } else {
            ""
        };
        Some(format!(
            "the invoice's line has {}, and Stripe was told {at_stripe}{why}",
            self.quantity
        ))
    }
}

/// What a line is about, and what Stripe bills there.
async fn of_line(parts: &Parts, line: &str) -> Result<(Proof, Option<Billed>), Refused> {
    let Some((invoice, line)) = line
        .split_once('/')
        .filter(|(invoice, _)| invoice.starts_with("in_"))
    else {
        return Ok((parse(line)?, None));
    };
    let stripe = &parts.sender.stripe;
    let wrong = |why: String| Refused::Missing(format!("line: {why}"));
    let customer = stripe.invoice(invoice).await.map_err(of_stripe)?.customer;
    let customer = customer.unwrap_or_default();
    let tenant = stripe
        .tenant(&customer)
        .ok_or_else(|| wrong(format!("{invoice} is {customer}'s, who is no tenant")))?;
    let lines = stripe.invoice_lines(invoice).await.map_err(of_stripe)?;
    let found = lines
        .iter()
        .find(|found| found.id == line)
        .ok_or_else(|| wrong(format!("{invoice} has no line {line}")))?;
    let price = found
        .price()
        .ok_or_else(|| wrong(format!("{line} has no price")))?;
    let price = stripe.price(price).await.map_err(of_stripe)?;
    let meter_id = price.recurring.and_then(|recurring| recurring.meter);
    let mappings = parts.sender.mappings().await.map_err(|error| match error {
        MeterError::Unknown(error) => Refused::from(error),
        MeterError::Wrong(message) => Refused::Failed(message),
    })?;
    let (meter, _) = mappings
        .iter()
        .find(|(_, mapping)| Some(&mapping.id) == meter_id.as_ref())
        .ok_or_else(|| wrong(format!("{line} is of no meter of stripe.meters")))?;
    let (from, to) = (found.period.start, found.period.end);
    let proof = Proof {
        tenant: TenantId::new(tenant).map_err(|error| wrong(error.to_string()))?,
        meter: meter.clone(),
        from: Hour::of_s(from),
        to: Hour::of_s(to.saturating_add(3_599)),
    };
    let billed = Billed {
        quantity: found.quantity.unwrap_or(0),
        transform: price.transform_quantity,
        has_part_hours: [from, to].iter().any(|s| s.rem_euclid(3_600) != 0),
    };
    Ok((proof, Some(billed)))
}

fn of_stripe(error: StripeError) -> Refused {
    let text = format!("{:#}", anyhow::Error::new(error));
    Refused::Failed(format!("line: {text}"))
}

/// Reads `TENANT/METER/TIME`.
fn parse(line: &str) -> Result<Proof, Refused> {
    let wrong = |why: &str| Refused::Wrong(format!("line: {why}, found {line:?}"));
    let mut words = line.split('/');
    let (Some(tenant), Some(meter), Some(time), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong(
            "must be in_.../il_... or TENANT/METER/TIME, such as acme/input_tokens/2026-11",
        ));
    };
    let (from, to) = hours(time).ok_or_else(|| {
        wrong("must end in a month, a day or an hour, such as 2026-11, 2026-11-23, 2026-11-23T14")
    })?;
    Ok(Proof {
        tenant: TenantId::new(tenant).map_err(|error| wrong(&error.to_string()))?,
        meter: Meter::parse(meter).map_err(|error| wrong(&error.to_string()))?,
        from,
        to,
    })
}

/// The first hour of a time, and the first after it.
fn hours(time: &str) -> Option<(Hour, Hour)> {
    let (day, hour) = match time.split_once('T') {
        Some((day, hour)) => (day, Some(hour.parse::<u8>().ok()?)),
        None => (time, None),
    };
    let mut numbers = day.split('-');
    let (year, month) = (numbers.next()?.parse().ok()?, numbers.next()?);
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    let day: Option<u8> = numbers.next().map(str::parse).transpose().ok()?;
    if numbers.next().is_some() || (hour.is_some() && day.is_none()) {
        return None;
    }
    let first = Date::from_calendar_date(year, month, day.unwrap_or(1)).ok()?;
    let after = match day {
        Some(_) => first.next_day()?,
        None => first.replace_day(month.length(year)).ok()?.next_day()?,
    };
    let start = |date: Date, hour: u8| {
        let time = Time::from_hms(hour, 0, 0).ok()?;
        Some(Hour::of_s(
            date.with_time(time).assume_utc().unix_timestamp(),
        ))
    };
    match hour {
        Some(hour) => {
            let first = start(first, hour)?;
            Some((first, Hour(first.0.checked_add(1)?)))
        }
        None => Some((start(first, 0)?, start(after, 0)?)),
    }
}

#[cfg(test)]
mod tests {
    use weir_meter_core::stripe::Round;

    use super::*;

    #[test]
    fn a_time_is_an_hour_a_day_or_a_month() {
        let check = |time: &str, expected: Option<(&str, &str)>| {
            let found = hours(time).map(|(from, to)| (text(from), text(to)));
            let expected = expected.map(|(from, to)| (from.to_owned(), to.to_owned()));
            assert_eq!(found, expected, "{time}");
        };
        check(
            "2026-11-23T14",
            Some(("2026-11-23T14:00:00Z", "2026-11-23T15:00:00Z")),
        );
        check(
            "2026-12-31T23",
            Some(("2026-12-31T23:00:00Z", "2027-01-01T00:00:00Z")),
        );
        check(
            "2026-11-23",
            Some(("2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z")),
        );
        check(
            "2028-02",
            Some(("2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z")),
        );
        for wrong in [
            "",
            "2026",
            "2026-13",
            "2026-02-30",
            "2026-11T04",
            "2026-11-23T24",
            "x-y",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn an_invoice_may_bill_by_the_thousand() {
        let check = |quantity, divide_by: Option<i64>, at_stripe, fits| {
            let billed = Billed {
                quantity,
                transform: divide_by.map(|divide_by| TransformQuantity {
                    divide_by,
                    round: Round::Up,
                }),
                has_part_hours: false,
            };
            assert_eq!(
                billed.problem(at_stripe).is_none(),
                fits,
                "{quantity} {at_stripe}"
            );
        };
        check(5, None, 5, true);
        check(5, None, 6, false);
        check(0, None, -6, true);
        check(2, Some(1_000), 1_001, true);
        check(1_001, Some(1_000), 1_001, true);
        check(1, Some(1_000), 1_001, false);
        check(1, Some(0), 0, false);
    }

    #[test]
    fn a_line_names_tenant_and_meter() {
        let proof = parse("acme/input_tokens.premium/2026-11").unwrap();
        assert_eq!(proof.tenant.as_str(), "acme");
        assert_eq!(proof.meter.to_string(), "input_tokens.premium");
        for (line, says) in [
            ("acme", "TENANT/METER/TIME"),
            ("a b/api_calls/2026-11", "tenant"),
            ("acme/calls/2026-11", "calls"),
            ("acme/api_calls/now", "must end in"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
