//! `/v1/customers`.

use serde_json::{Map, Value, json};

use super::{
    error::StripeError,
    form::Form,
    list,
    params::{ENDING_BEFORE, Kind, LIMIT, METADATA, Param, STARTING_AFTER, TEXT, optional},
    routes::Call,
    store::{Store, metadata, short_id, update_metadata},
};

/// For creating and for updating; an empty text unsets.
pub(super) const CREATE: &[Param] = &[
    optional("name", Kind::AnyText),
    optional("email", Kind::AnyText),
    optional("description", Kind::AnyText),
    optional("phone", Kind::AnyText),
    METADATA[0],
    METADATA[1],
];

pub(super) const LIST: &[Param] = &[
    LIMIT,
    STARTING_AFTER,
    ENDING_BEFORE,
    optional("email", TEXT),
];

/// A customer.
#[derive(Clone, Debug)]
pub(super) struct Customer {
    pub(super) id: String,
    name: Option<String>,
    email: Option<String>,
    description: Option<String>,
    phone: Option<String>,
    metadata: Map<String, Value>,
    created: i64,
}

impl Customer {
    pub(super) fn render(&self) -> Value {
        json!({
            "id": self.id,
            "object": "customer",
            "address": null,
            "balance": 0,
            "created": self.created,
            "currency": null,
            "default_source": null,
            "delinquent": false,
            "description": self.description,
            "email": self.email,
            "livemode": false,
            "metadata": self.metadata,
            "name": self.name,
            "phone": self.phone,
            "shipping": null,
            "tax_exempt": "none",
            "test_clock": null,
        })
    }

    fn set(&mut self, form: &Form) {
        let fields = [
            ("name", &mut self.name),
            ("email", &mut self.email),
            ("description", &mut self.description),
            ("phone", &mut self.phone),
        ];
        for (key, field) in fields {
            if let Some(value) = form.get(key) {
                *field = (!value.is_empty()).then(|| value.to_owned());
            }
        }
    }

    pub(super) fn email(&self) -> Option<&str> {
        self.email.as_deref()
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

pub(super) fn create(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    valid_email(call.form)?;
    let mut customer = Customer {
        id: short_id("cus_"),
        name: None,
        email: None,
        description: None,
        phone: None,
        metadata: metadata(call.form),
        created: call.now,
    };
    customer.set(call.form);
    let rendered = customer.render();
    store.customers.push(customer);
    Ok(rendered)
}

pub(super) fn update(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    valid_email(call.form)?;
    let customer = store
        .customers
        .iter_mut()
        .find(|customer| customer.id == call.id);
    let customer = customer.ok_or_else(|| StripeError::no_such("customer", call.id, "id"))?;
    customer.set(call.form);
    update_metadata(&mut customer.metadata, call.form);
    Ok(customer.render())
}

pub(super) fn retrieve(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    store.customer(call.id, "id").map(Customer::render)
}

pub(super) fn list(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let email = call.form.get("email");
    let customers = store.customers.iter().rev();
    let customers = customers.filter(|one| email.is_none() || one.email.as_deref() == email);
    list::page(
        customers.map(Customer::render).collect(),
        call.form,
        call.path,
        "customer",
    )
}

fn valid_email(form: &Form) -> Result<(), StripeError> {
    match form.get("email") {
        Some(email) if !email.is_empty() && !email.contains('@') => {
            let message = format!("Invalid email address: {email}");
            Err(StripeError::invalid("email_invalid", "email", message))
        }
        _ => Ok(()),
    }
}
