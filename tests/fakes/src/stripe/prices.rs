//! `/v1/prices`.

use serde_json::{Map, Value, json};

use super::{
    error::StripeError,
    form::Form,
    list,
    money::UnitAmount,
    params::{
        ENDING_BEFORE, Kind, LIMIT, METADATA, Param, STARTING_AFTER, TEXT, optional, required,
    },
    period::Interval,
    products::Product,
    routes::Call,
    store::{Store, long_id, metadata},
};

pub(super) const CREATE: &[Param] = &[
    required("currency", TEXT),
    optional("active", Kind::Boolean),
    // Tiers are not implemented, and saying so beats a wrong invoice.
    optional("billing_scheme", Kind::OneOf(&["per_unit"])),
    optional("lookup_key", Kind::Text(200)),
    METADATA[0],
    optional("nickname", TEXT),
    optional("product", TEXT),
    optional("product_data[name]", TEXT),
    optional("product_data[unit_label]", TEXT),
    optional(
        "recurring[interval]",
        Kind::OneOf(&["day", "month", "week", "year"]),
    ),
    optional("recurring[interval_count]", Kind::Integer),
    optional("recurring[meter]", TEXT),
    optional(
        "recurring[usage_type]",
        Kind::OneOf(&["licensed", "metered"]),
    ),
    optional("transfer_lookup_key", Kind::Boolean),
    optional("unit_amount", Kind::Integer),
    optional("unit_amount_decimal", Kind::Decimal),
];

pub(super) const LIST: &[Param] = &[
    LIMIT,
    STARTING_AFTER,
    ENDING_BEFORE,
    optional("active", Kind::Boolean),
    optional("currency", TEXT),
    optional("lookup_keys[#]", TEXT),
    optional("product", TEXT),
    optional("type", Kind::OneOf(&["one_time", "recurring"])),
];

/// How often a price is charged.
#[derive(Clone, Debug)]
pub(super) struct Recurring {
    pub(super) interval: String,
    pub(super) interval_count: u32,
    /// The meter of a metered price; none for a licensed one.
    pub(super) meter: Option<String>,
}

impl Recurring {
    pub(super) fn period(&self) -> Interval {
        Interval::new(&self.interval, self.interval_count)
    }
}

/// A price.
#[derive(Clone, Debug)]
pub(super) struct Price {
    pub(super) id: String,
    pub(super) product: String,
    pub(super) currency: String,
    pub(super) unit_amount: UnitAmount,
    pub(super) recurring: Option<Recurring>,
    pub(super) active: bool,
    lookup_key: Option<String>,
    nickname: Option<String>,
    metadata: Map<String, Value>,
    created: i64,
}

impl Price {
    pub(super) fn render(&self) -> Value {
        let recurring = self.recurring.as_ref().map(|recurring| {
            json!({
                "interval": recurring.interval,
                "interval_count": recurring.interval_count,
                "meter": recurring.meter,
                "trial_period_days": null,
                "usage_type": if recurring.meter.is_some() { "metered" } else { "licensed" },
            })
        });
        json!({
            "id": self.id,
            "object": "price",
            "active": self.active,
            "billing_scheme": "per_unit",
            "created": self.created,
            "currency": self.currency,
            "custom_unit_amount": null,
            "livemode": false,
            "lookup_key": self.lookup_key,
            "metadata": self.metadata,
            "nickname": self.nickname,
            "product": self.product,
            "recurring": recurring,
            "tax_behavior": "unspecified",
            "tiers_mode": null,
            "transform_quantity": null,
            "type": self.kind(),
            "unit_amount": self.unit_amount.whole_cents(),
            "unit_amount_decimal": self.unit_amount.decimal(),
        })
    }

    fn holds(&self, lookup_key: &str) -> bool {
        self.active && self.lookup_key.as_deref() == Some(lookup_key)
    }

    fn kind(&self) -> &'static str {
        if self.recurring.is_some() {
            "recurring"
        } else {
            "one_time"
        }
    }
}

pub(super) fn create(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let form = call.form;
    let currency = form.need("currency")?.to_ascii_lowercase();
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_lowercase()) {
        let message = format!("Invalid currency: {currency}; three letters are needed.");
        return Err(StripeError::parameter(
            "parameter_invalid_enum",
            "currency",
            message,
        ));
    }
    let unit_amount = unit_amount(form)?;
    let recurring = recurring(store, form)?;
    check_lookup_key(store, form)?;
    let product = product_of(store, call)?;
    // From here on nothing is refused, so nothing is changed by halves.
    hand_over_lookup_key(store, form);
    let price = Price {
        id: long_id("price_1"),
        product,
        currency,
        unit_amount,
        recurring,
        active: form.boolean("active").unwrap_or(true),
        lookup_key: form.get("lookup_key").map(str::to_owned),
        nickname: form.get("nickname").map(str::to_owned),
        metadata: metadata(form),
        created: call.now,
    };
    let rendered = price.render();
    store.prices.push(price);
    Ok(rendered)
}

pub(super) fn retrieve(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    store.price(call.id, "id").map(Price::render)
}

pub(super) fn list(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let form = call.form;
    let active = form.boolean("active");
    let keys: Vec<&str> = form.children("lookup_keys").map(|(_, key)| key).collect();
    let wanted = |key: &str, found: &str| form.get(key).is_none_or(|wanted| wanted == found);
    let prices = store.prices.iter().rev().filter(|price| {
        active.is_none_or(|active| price.active == active)
            && (keys.is_empty()
                || price
                    .lookup_key
                    .as_deref()
                    .is_some_and(|key| keys.contains(&key)))
            && wanted("product", &price.product)
            && wanted("currency", &price.currency)
            && wanted("type", price.kind())
    });
    list::page(
        prices.map(Price::render).collect(),
        form,
        call.path,
        "price",
    )
}

fn unit_amount(form: &Form) -> Result<UnitAmount, StripeError> {
    match (form.integer("unit_amount"), form.get("unit_amount_decimal")) {
        (Some(_), Some(_)) => {
            let message = "unit_amount excludes unit_amount_decimal.".to_owned();
            Err(StripeError::parameter(
                "parameters_exclusive",
                "unit_amount",
                message,
            ))
        }
        (Some(cents), None) => UnitAmount::from_cents(cents).ok_or_else(|| {
            let message = format!("Invalid unit_amount: {cents}; it must not be negative.");
            StripeError::parameter("parameter_invalid_integer", "unit_amount", message)
        }),
        (None, Some(decimal)) => {
            UnitAmount::parse(decimal).ok_or_else(|| StripeError::missing("unit_amount_decimal"))
        }
        (None, None) => Err(StripeError::missing("unit_amount")),
    }
}

fn recurring(store: &Store, form: &Form) -> Result<Option<Recurring>, StripeError> {
    if !form.has("recurring") {
        return Ok(None);
    }
    let interval = form.need("recurring[interval]")?.to_owned();
    let metered = form.get("recurring[usage_type]") == Some("metered");
    let meter = form.get("recurring[meter]");
    match meter {
        None if metered => {
            // Since the version of 2025-03-31, usage is counted by meters alone.
            return Err(StripeError::missing("recurring[meter]"));
        }
        Some(_) if !metered => {
            let message = "recurring[meter] needs recurring[usage_type]=metered.".to_owned();
            return Err(StripeError::refused(
                "meter_not_metered",
                "recurring[meter]",
                message,
            ));
        }
        Some(id) if !store.meter(id, "recurring[meter]")?.active => {
            let message = "The meter is inactive.".to_owned();
            return Err(StripeError::refused(
                "meter_inactive",
                "recurring[meter]",
                message,
            ));
        }
        _ => {}
    }
    let count = form.integer("recurring[interval_count]").unwrap_or(1);
    let most: i64 = match interval.as_str() {
        "day" => 1095,
        "week" => 156,
        "year" => 3,
        _ => 36,
    };
    let interval_count = u32::try_from(count)
        .ok()
        .filter(|_| (1..=most).contains(&count));
    let interval_count = interval_count.ok_or_else(|| {
        let message = format!("Invalid recurring[interval_count]: it must be 1 to {most}.");
        StripeError::parameter(
            "parameter_invalid_integer",
            "recurring[interval_count]",
            message,
        )
    })?;
    Ok(Some(Recurring {
        interval,
        interval_count,
        meter: meter.map(str::to_owned),
    }))
}

/// Of active prices, each has a lookup key of its own, unless it is handed over.
fn check_lookup_key(store: &Store, form: &Form) -> Result<(), StripeError> {
    let Some(key) = form.get("lookup_key") else {
        return Ok(());
    };
    let taken = store.prices.iter().any(|price| price.holds(key));
    if taken && form.boolean("transfer_lookup_key") != Some(true) {
        let message = format!("A price already uses the lookup key '{key}'.");
        return Err(StripeError::refused(
            "lookup_key_taken",
            "lookup_key",
            message,
        ));
    }
    Ok(())
}

fn hand_over_lookup_key(store: &mut Store, form: &Form) {
    let Some(key) = form.get("lookup_key") else {
        return;
    };
    for holder in store.prices.iter_mut().filter(|price| price.holds(key)) {
        holder.lookup_key = None;
    }
}

/// The product that the price names, or the one that it brings along.
fn product_of(store: &mut Store, call: &Call<'_>) -> Result<String, StripeError> {
    let form = call.form;
    match (form.get("product"), form.has("product_data")) {
        (Some(_), true) => {
            let message = "product excludes product_data.".to_owned();
            Err(StripeError::parameter(
                "parameters_exclusive",
                "product",
                message,
            ))
        }
        (Some(id), false) => Ok(store.product(id, "product")?.id.clone()),
        (None, false) => Err(StripeError::missing("product")),
        (None, true) => {
            let name = form.need("product_data[name]")?;
            let product = Product::inline(name, form.get("product_data[unit_label]"), call.now);
            let id = product.id.clone();
            store.products.push(product);
            Ok(id)
        }
    }
}
