//! The table of endpoints: method, path, parameters, and what carries it out.

use serde_json::Value;

use super::{
    bills, customers, error::StripeError, events, form::Form, invoices, meters, params::Param,
    prices, products, store::Store, subscriptions, summaries, webhooks,
};

/// A request whose parameters were checked.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// The `{id}` of the path, or an empty string.
    pub(super) id: &'a str,
    pub(super) path: &'a str,
    pub(super) form: &'a Form,
    /// Seconds since 1970 on the fake's clock.
    pub(super) now: i64,
    /// Whether a fault loses what is accepted.
    pub(super) lose: bool,
}

/// Carries a request out.
pub(super) type Run = fn(&mut Store, &Call<'_>) -> Result<Value, StripeError>;

/// One endpoint.
pub(super) struct Route {
    pub(super) method: &'static str,
    /// The path, with `{id}` for one segment.
    pub(super) path: &'static str,
    pub(super) params: &'static [Param],
    pub(super) run: Run,
}

const fn route(
    method: &'static str,
    path: &'static str,
    params: &'static [Param],
    run: Run,
) -> Route {
    Route {
        method,
        path,
        params,
        run,
    }
}

/// Where meter events go: the one path with a lock.
pub(super) const METER_EVENTS: &str = "/v1/billing/meter_events";

/// All endpoints.
pub(super) const ROUTES: &[Route] = &[
    route("POST", "/v1/billing/meters", meters::CREATE, meters::create),
    route("GET", "/v1/billing/meters", meters::LIST, meters::list),
    route("GET", "/v1/billing/meters/{id}", &[], meters::retrieve),
    route(
        "POST",
        "/v1/billing/meters/{id}/deactivate",
        &[],
        meters::deactivate,
    ),
    route(
        "POST",
        "/v1/billing/meters/{id}/reactivate",
        &[],
        meters::reactivate,
    ),
    route(
        "GET",
        "/v1/billing/meters/{id}/event_summaries",
        summaries::LIST,
        summaries::list,
    ),
    route("POST", METER_EVENTS, events::CREATE, events::create),
    route(
        "POST",
        "/v1/customers",
        customers::CREATE,
        customers::create,
    ),
    route("GET", "/v1/customers", customers::LIST, customers::list),
    route("GET", "/v1/customers/{id}", &[], customers::retrieve),
    route(
        "POST",
        "/v1/customers/{id}",
        customers::CREATE,
        customers::update,
    ),
    route("POST", "/v1/products", products::CREATE, products::create),
    route("GET", "/v1/products", products::LIST, products::list),
    route("GET", "/v1/products/{id}", &[], products::retrieve),
    route("POST", "/v1/prices", prices::CREATE, prices::create),
    route("GET", "/v1/prices", prices::LIST, prices::list),
    route("GET", "/v1/prices/{id}", &[], prices::retrieve),
    route(
        "POST",
        "/v1/subscriptions",
        subscriptions::CREATE,
        subscriptions::create,
    ),
    route(
        "GET",
        "/v1/subscriptions",
        subscriptions::LIST,
        subscriptions::list,
    ),
    route(
        "GET",
        "/v1/subscriptions/{id}",
        &[],
        subscriptions::retrieve,
    ),
    route(
        "DELETE",
        "/v1/subscriptions/{id}",
        &[],
        subscriptions::cancel,
    ),
    route(
        "POST",
        "/v1/invoices/create_preview",
        invoices::PREVIEW,
        invoices::create_preview,
    ),
    route("GET", "/v1/invoices/{id}", &[], bills::retrieve),
    route("GET", "/v1/invoices/{id}/lines", bills::LINES, bills::lines),
    route("GET", "/v2/core/events/{id}", &[], webhooks::retrieve),
];

/// The endpoint and the id in its path. Fixed paths win over those with an id.
pub(super) fn find<'a>(method: &str, path: &'a str) -> Option<(&'static Route, &'a str)> {
    let matching = ROUTES
        .iter()
        .filter(|route| route.method == method)
        .filter_map(|route| id_in(route.path, path).map(|id| (route, id)));
    matching.min_by_key(|(_, id)| !id.is_empty())
}

fn id_in<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once("{id}") else {
        return (pattern == path).then_some("");
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// The parameter's schema inside that of a body or a query.
    fn inside<'a>(schema: &'a Value, segments: &[&str]) -> Vec<&'a Value> {
        let Some((segment, rest)) = segments.split_first() else {
            return vec![schema];
        };
        let mut found = Vec::new();
        for one in schema
            .get("anyOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            found.extend(inside(one, segments));
        }
        let next = match *segment {
            "#" => schema.get("items"),
            "*" => schema.get("additionalProperties"),
            name => schema
                .get("properties")
                .and_then(|properties| properties.get(name)),
        };
        found.extend(next.into_iter().flat_map(|next| inside(next, rest)));
        found
    }

    fn documented(operation: &Value, param: &Param) -> bool {
        let segments: Vec<&str> = param.segments().collect();
        let body =
            operation.pointer("/requestBody/content/application~1x-www-form-urlencoded/schema");
        if body.is_some_and(|body| !inside(body, &segments).is_empty()) {
            return true;
        }
        let query = operation
            .get("parameters")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        query
            .filter(|known| known.get("in").and_then(Value::as_str) == Some("query"))
            .any(|known| {
                let name = known["name"].as_str().unwrap_or_default();
                let array = param
                    .name
                    .strip_suffix("[#]")
                    .is_some_and(|base| format!("{base}[]") == name);
                let schema = &known["schema"];
                array || (name == segments[0] && !inside(schema, &segments[1..]).is_empty())
            })
    }

    /// The names that Stripe requires, of the body or the query.
    fn required_names(operation: &Value) -> Vec<String> {
        let body = operation
            .pointer("/requestBody/content/application~1x-www-form-urlencoded/schema/required");
        let body = body
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let query = operation["parameters"].as_array().into_iter().flatten();
        let query = query
            .filter(|known| known["in"] == "query" && known["required"] == true)
            .filter_map(|known| known["name"].as_str());
        body.chain(query).map(str::to_owned).collect()
    }

    #[test]
    fn every_parameter_is_in_stripes_openapi() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../../shared/stripe/stripe-billing.openapi.json");
        let Ok(text) = fs::read_to_string(&file) else {
            println!("skipped: {} is absent", file.display());
            return;
        };
        let api: Value = serde_json::from_str(&text).unwrap();
        // Of /v2/core the file has no paths.
        for route in ROUTES.iter().filter(|r| !r.path.starts_with("/v2/core/")) {
            let method = route.method.to_lowercase();
            let operation = &api["paths"][route.path][&method];
            assert!(
                operation.is_object(),
                "{method} {} is not Stripe's",
                route.path
            );
            for param in route.params {
                assert!(
                    documented(operation, param),
                    "{method} {}: {}",
                    route.path,
                    param.name
                );
            }
            for name in required_names(operation) {
                let ours = |param: &Param| param.required && param.segments().next() == Some(&name);
                assert!(
                    route.params.iter().any(ours),
                    "{method} {} needs {name}",
                    route.path
                );
            }
        }
    }

    #[test]
    fn paths_are_matched_whole() {
        let check = |method: &str, path: &str, wanted: Option<(&str, &str)>| {
            let found = find(method, path).map(|(route, id)| (route.path, id));
            assert_eq!(found, wanted, "{method} {path}");
        };
        check("GET", "/v1/customers", Some(("/v1/customers", "")));
        check(
            "GET",
            "/v1/customers/cus_1",
            Some(("/v1/customers/{id}", "cus_1")),
        );
        check("GET", "/v1/customers/cus_1/x", None);
        check("GET", "/v1/customers/", None);
        check(
            "GET",
            "/v1/billing/meters/m/event_summaries",
            Some(("/v1/billing/meters/{id}/event_summaries", "m")),
        );
        check("DELETE", "/v1/customers", None);
    }
}
