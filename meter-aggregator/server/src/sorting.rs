//! What was read of a lane, by what it is booked as.

use std::collections::BTreeMap;

use weir_meter_core::{
    lease::{Scope, Shard},
    place,
};
use weir_meter_store::{
    ledger::LedgerError,
    stream::{Aside, Lane},
};
use weir_wire::{
    ids::TenantId,
    keys::Keyring,
    proto::usage::UsageEvent,
    usage::{self, ContextRule, cloudevents},
};

use crate::fleet::Held;

/// Events, by what they are booked as.
pub type Groups = Vec<(Scope, Vec<(i64, UsageEvent)>)>;

/// As what a lane's events are booked; of that with every tenant's as any of what is held.
pub fn scope_of(lane: Lane, held: &Held) -> Option<Scope> {
    match lane {
        Lane::Of(shard) => held.scope(shard),
        Lane::Whole => held.house(),
    }
}

/// Whether an event of a shared stream can be booked.
fn check(event: &UsageEvent, keys: &Keyring, now_ms: i64) -> Result<(), String> {
    let checked = usage::check(event, keys, ContextRule::IfPresent).map_err(|e| e.to_string())?;
    let age_ms = now_ms.saturating_sub(checked.request_id.time_ms());
    match age_ms > AGE_MAX_MS {
        true => Err(
            "request_id is older than 39 days: nobody knows any more whether it was booked"
                .to_owned(),
        ),
        false => Ok(()),
    }
}

/// What is older may be in the stream for the second time, and have gone from the ledger, which
/// keeps requests for 40 days.
const AGE_MAX_MS: i64 = 39 * 86_400_000;

/// Reads the events of a lane. What is none of it is set aside: it is no event, or of a
/// tenant of another shard.
pub fn sort(
    lane: Lane,
    texts: Vec<(i64, String)>,
    held: &Held,
    keys: Option<&Keyring>,
    now_ms: i64,
) -> Result<(Groups, Vec<Aside>), LedgerError> {
    let mut groups: BTreeMap<Option<Shard>, Vec<(i64, UsageEvent)>> = BTreeMap::new();
    let mut strange = Vec::new();
    for (position, text) in texts {
        let aside = |text: String, reason: String| Aside {
            place: Some(place::in_stream(lane, position, text.as_bytes())),
            bytes: text.into_bytes(),
            reason,
            number: None,
        };
        let event = match cloudevents::decode(text.as_bytes()) {
            Ok(event) => event,
            // Nobody but this program writes the embedded one.
            Err(source) if lane == Lane::Whole => {
                return Err(LedgerError::Event {
                    seq: position,
                    source,
                });
            }
            Err(error) => {
                strange.push(aside(text, format!("{:#}", anyhow::Error::new(error))));
                continue;
            }
        };
        // Ingest did the same, but others may write to a stream that is shared.
        if let (Lane::Of(_), Some(keys)) = (lane, keys)
            && let Err(reason) = check(&event, keys, now_ms)
        {
            strange.push(aside(text, reason));
            continue;
        }
        let tenant = TenantId::new(event.tenant.as_str());
        let shard = tenant.ok().as_ref().map(Shard::of);
        match (lane, shard) {
            (Lane::Of(expected), shard) if shard != Some(expected) => {
                let reason = "tenant is of another partition of the stream";
                strange.push(aside(text, reason.to_owned()));
                continue;
            }
            _ => {}
        }
        let group = shard.filter(|_| *held != Held::Whole);
        groups.entry(group).or_default().push((position, event));
    }
    let groups = groups.into_iter().map(|(shard, events)| {
        let scope = match shard {
            Some(shard) => held.scope(shard).ok_or(LedgerError::Fenced { shard }),
            None => Ok(Scope::Whole),
        };
        scope.map(|scope| (scope, events))
    });
    Ok((groups.collect::<Result<_, _>>()?, strange))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(tenant: &str) -> String {
        let event = UsageEvent {
            request_id: "0198c0de-0000-7000-8000-000000000001".to_owned(),
            tenant: tenant.to_owned(),
            ..UsageEvent::default()
        };
        cloudevents::encode(&event).unwrap()
    }

    fn shard(tenant: &str) -> Shard {
        Shard::of(&TenantId::new(tenant).unwrap())
    }

    #[test]
    fn what_is_none_of_a_lane_is_set_aside() {
        let own = shard("acme");
        let held = Held::Shards(BTreeMap::from([(own, 3)]));
        let texts = vec![
            (7, event("acme")),
            (7, "garbage".to_owned()),
            (8, event("solo")),
        ];
        let (groups, strange) = sort(Lane::Of(own), texts, &held, None, 0).unwrap();
        let [(Scope::Held(lease), events)] = groups.as_slice() else {
            panic!("{groups:?}");
        };
        assert_eq!((lease.shard, lease.epoch, events.len()), (own, 3, 1));
        let places: Vec<_> = strange.iter().map(|aside| aside.place.clone()).collect();
        let place =
            |number, text: String| Some(place::in_stream(own.number(), number, text.as_bytes()));
        let expected = [place(7, "garbage".to_owned()), place(8, event("solo"))];
        assert_eq!(places, expected);
        assert!(strange[1].reason.contains("another partition"));
    }

    #[test]
    fn every_tenants_lane_is_booked_by_shards_where_there_are_some() {
        let texts = || vec![(1, event("acme")), (2, event("solo")), (3, event("acme"))];
        let (groups, _) = sort(Lane::Whole, texts(), &Held::Whole, None, 0).unwrap();
        assert!(matches!(groups.as_slice(), [(Scope::Whole, events)] if events.len() == 3));
        let all = Held::Shards(Shard::all().map(|shard| (shard, 1)).collect());
        let (groups, _) = sort(Lane::Whole, texts(), &all, None, 0).unwrap();
        assert_eq!(groups.len(), 2);
        let some = Held::Shards(BTreeMap::from([(shard("acme"), 1)]));
        let fenced = sort(Lane::Whole, texts(), &some, None, 0);
        assert!(matches!(fenced, Err(LedgerError::Fenced { shard: s }) if s == shard("solo")));
    }
}
