//! `/v1/products`.

use serde_json::{Map, Value, json};

use super::{
    error::StripeError,
    list,
    params::{
        ENDING_BEFORE, Kind, LIMIT, METADATA, Param, STARTING_AFTER, TEXT, optional, required,
    },
    routes::Call,
    store::{Store, metadata, short_id},
};

pub(super) const CREATE: &[Param] = &[
    required("name", TEXT),
    optional("id", TEXT),
    optional("active", Kind::Boolean),
    optional("description", TEXT),
    optional("unit_label", TEXT),
    METADATA[0],
];

pub(super) const LIST: &[Param] = &[
    LIMIT,
    STARTING_AFTER,
    ENDING_BEFORE,
    optional("active", Kind::Boolean),
    optional("ids[#]", TEXT),
];

/// A product.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) id: String,
    pub(super) name: String,
    active: bool,
    description: Option<String>,
    unit_label: Option<String>,
    metadata: Map<String, Value>,
    created: i64,
}

impl Product {
    /// The product that a price brings along.
    pub(super) fn inline(name: &str, unit_label: Option<&str>, now: i64) -> Self {
        Self {
            id: short_id("prod_"),
            name: name.to_owned(),
            active: true,
            description: None,
            unit_label: unit_label.map(str::to_owned),
            metadata: Map::new(),
            created: now,
        }
    }

    fn render(&self) -> Value {
        json!({
            "id": self.id,
            "object": "product",
            "active": self.active,
            "created": self.created,
            "default_price": null,
            "description": self.description,
            "images": [],
            "livemode": false,
            "marketing_features": [],
            "metadata": self.metadata,
            "name": self.name,
            "tax_code": null,
            "type": "service",
            "unit_label": self.unit_label,
            "updated": self.created,
            "url": null,
        })
    }
}

pub(super) fn create(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let form = call.form;
    let id = form
        .get("id")
        .map_or_else(|| short_id("prod_"), str::to_owned);
    if store.product(&id, "id").is_ok() {
        let message = format!("A product with the id '{id}' already exists.");
        return Err(StripeError::invalid(
            "resource_already_exists",
            "id",
            message,
        ));
    }
    let product = Product {
        id,
        name: form.need("name")?.to_owned(),
        active: form.boolean("active").unwrap_or(true),
        description: form.get("description").map(str::to_owned),
        unit_label: form.get("unit_label").map(str::to_owned),
        metadata: metadata(form),
        created: call.now,
    };
    let rendered = product.render();
    store.products.push(product);
    Ok(rendered)
}

pub(super) fn retrieve(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    store.product(call.id, "id").map(Product::render)
}

pub(super) fn list(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let active = call.form.boolean("active");
    let ids: Vec<&str> = call.form.children("ids").map(|(_, id)| id).collect();
    let products = store.products.iter().rev().filter(|product| {
        active.is_none_or(|active| product.active == active)
            && (ids.is_empty() || ids.contains(&product.id.as_str()))
    });
    list::page(
        products.map(Product::render).collect(),
        call.form,
        call.path,
        "product",
    )
}
