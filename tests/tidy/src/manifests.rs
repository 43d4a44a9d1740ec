//! Kong's filter metadata say what the filters' configs are.
//!
//! Kong checks a filter's config against the JSON schema beside its `.wasm`; a
//! schema that differs from the Rust config would refuse what the filter takes,
//! or let through what makes each request fail.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, Group, TokenTree};
use serde_json::Value;

use crate::{
    Violation, configs,
    files::File,
    rust::{self, Source},
};

/// A struct that serde reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Struct {
    /// Whether it refuses fields that it does not know.
    pub closed: bool,
    /// By name.
    pub fields: BTreeMap<String, Field>,
}

/// One of its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Field {
    /// Whether it may be left out.
    pub optional: bool,
    /// Every name in its type.
    pub type_names: Vec<String>,
}

/// The filters: `tenant_identification` for `plugins/tenant-identification`.
#[must_use]
pub fn filters(files: &[File]) -> Vec<String> {
    files
        .iter()
        .filter_map(|f| {
            let name = f.path.strip_prefix("plugins/")?;
            let name = name.strip_suffix("/filter/Cargo.toml")?;
            Some(name.replace('-', "_"))
        })
        .collect()
}

/// Manifests that are missing, too many, or unlike the config.
#[must_use]
pub fn violations(files: &[File]) -> Vec<Violation> {
    let filters = filters(files);
    let mut found = Vec::new();
    for file in files {
        let stem = file
            .path
            .strip_suffix(".meta.json")
            .and_then(|p| p.strip_prefix("kong/"));
        if stem.is_some_and(|stem| !filters.iter().any(|f| f == stem)) {
            found.push(Violation::new(&file.path, 0, "no filter has this name"));
        }
    }
    for filter in filters {
        let path = format!("kong/{filter}.meta.json");
        let home = format!("plugins/{}/core/src/", filter.replace('_', "-"));
        let core: Vec<File> = files
            .iter()
            .filter(|f| f.path.starts_with(&home))
            .cloned()
            .collect();
        match files.iter().find(|f| f.path == path) {
            Some(manifest) => found.extend(of_filter(manifest, &core)),
            None => found.push(Violation::new(path, 0, "is missing")),
        }
    }
    found
}

fn of_filter(manifest: &File, core: &[File]) -> Vec<Violation> {
    let (structs, meta) = match (rust::shipped(core), configs::parse(manifest)) {
        (Ok(sources), Ok(meta)) => (sources.iter().flat_map(structs).collect(), meta),
        (Err(violation), _) | (_, Err(violation)) => return vec![violation],
    };
    let schema = meta.get("config_schema").unwrap_or(&Value::Null);
    let mut wrong = Vec::new();
    compare(&structs, "Config", schema, "config_schema", &mut wrong);
    let kong = Value::from(vec!["kong"]);
    if schema.pointer("/properties/host/enum") != Some(&kong) {
        wrong.push("config_schema.host: must have the enum [\"kong\"]".to_owned());
    }
    wrong
        .into_iter()
        .map(|message| Violation::new(&manifest.path, 0, message))
        .collect()
}

/// Says in `wrong` where the schema is not the struct, nested ones included.
fn compare(
    structs: &BTreeMap<String, Struct>,
    name: &str,
    schema: &Value,
    at: &str,
    wrong: &mut Vec<String>,
) {
    let Some(expected) = structs.get(name) else {
        wrong.push(format!("{at}: the core has no struct {name}"));
        return;
    };
    let empty = serde_json::Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let found: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    let fields: BTreeSet<&str> = expected.fields.keys().map(String::as_str).collect();
    if found != fields {
        wrong.push(format!(
            "{at}.properties: must be {fields:?} as in {name}, found {found:?}"
        ));
    }
    let needed: BTreeSet<&str> = expected
        .fields
        .iter()
        .filter_map(|(name, field)| (!field.optional).then_some(name.as_str()))
        .collect();
    let required: BTreeSet<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if needed != required {
        wrong.push(format!(
            "{at}.required: must be {needed:?} as in {name}, found {required:?}"
        ));
    }
    if expected.closed && schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        wrong.push(format!(
            "{at}.additionalProperties: must be false as in {name}"
        ));
    }
    for (field, property) in properties {
        let nested = expected
            .fields
            .get(field)
            .and_then(|f| f.type_names.iter().find(|t| structs.contains_key(*t)));
        if let Some(nested) = nested {
            compare(
                structs,
                nested,
                element(property),
                &format!("{at}.{field}"),
                wrong,
            );
        }
    }
}

/// The schema of what a list or a map holds, or of the value itself.
fn element(schema: &Value) -> &Value {
    let values = schema.get("patternProperties").and_then(Value::as_object);
    schema
        .get("items")
        .or_else(|| values.and_then(|v| v.values().next()))
        .unwrap_or(schema)
}

/// The structs that a source declares, by name.
fn structs(source: &Source) -> BTreeMap<String, Struct> {
    let mut found = BTreeMap::new();
    let mut attributes = Vec::new();
    let mut rest = source.trees();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (TokenTree::Punct(hash), [TokenTree::Group(attribute), after @ ..])
                if hash.as_char() == '#' =>
            {
                attributes.push(attribute.stream().to_string());
                rest = after;
            }
            (
                TokenTree::Ident(keyword),
                [TokenTree::Ident(name), TokenTree::Group(body), after @ ..],
            ) if keyword == "struct" && body.delimiter() == Delimiter::Brace => {
                let closed = attributes.iter().any(|a| a.contains("deny_unknown_fields"));
                let fields = fields(body);
                found.insert(name.to_string(), Struct { closed, fields });
                rest = after;
            }
            (TokenTree::Ident(word), _) if word == "pub" || word == "struct" => {}
            (TokenTree::Group(visibility), _)
                if visibility.delimiter() == Delimiter::Parenthesis => {}
            _ => attributes.clear(),
        }
    }
    found
}

fn fields(body: &Group) -> BTreeMap<String, Field> {
    let trees = rust::product(body.stream());
    let mut found = BTreeMap::new();
    let mut optional = false;
    let mut rest = trees.as_slice();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (TokenTree::Punct(hash), [TokenTree::Group(attribute), after @ ..])
                if hash.as_char() == '#' =>
            {
                optional |= attribute.stream().to_string().contains("default");
                rest = after;
            }
            (TokenTree::Ident(name), [TokenTree::Punct(colon), after @ ..])
                if colon.as_char() == ':' =>
            {
                let (type_names, after) = type_names(after);
                let field = Field {
                    optional: optional || type_names.first().is_some_and(|t| t == "Option"),
                    type_names,
                };
                found.insert(name.to_string(), field);
                optional = false;
                rest = after;
            }
            _ => {}
        }
    }
    found
}

/// The names in a type, and what follows the comma after it.
fn type_names(mut rest: &[TokenTree]) -> (Vec<String>, &[TokenTree]) {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            TokenTree::Ident(name) => names.push(name.to_string()),
            TokenTree::Punct(p) => match p.as_char() {
                '<' => depth = depth.saturating_add(1),
                '>' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => break,
                _ => {}
            },
            _ => {}
        }
    }
    (names, rest)
}
