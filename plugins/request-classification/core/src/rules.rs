//! The operator's rules, as they are asked: first by the headers, then by the body.

use serde_json::Value;
use weir_dialects::{
    json::{Kind, Scan},
    routes::RequestClass,
};

use crate::{config::Rule, pattern};

/// The rules in their order.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<Compiled>);

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    class: RequestClass,
    /// The place of its pointer among those that are looked for.
    place: Option<usize>,
}

/// Of a request, what rules ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    /// Without its query.
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a [u8])],
}

/// The rules that may still decide on a request, as a set of their positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Candidates(u32);

impl Candidates {
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn has(self, position: u32) -> bool {
        self.0 & 1_u32.wrapping_shl(position) != 0
    }
}

impl Rules {
    /// `place` gives the place of a pointer.
    pub(crate) fn new(rules: &[Rule], mut place: impl FnMut(&str) -> usize) -> Self {
        let compile = |rule: &Rule| Compiled {
            class: RequestClass::parse(&rule.class).unwrap_or(RequestClass::Unclassified),
            place: rule.pointer.as_deref().map(&mut place),
            rule: rule.clone(),
        };
        Self(rules.iter().map(compile).collect())
    }

    fn all(&self) -> impl Iterator<Item = (u32, &Compiled)> {
        (0_u32..).zip(&self.0)
    }

    /// Those whose conditions on the headers hold; of a path that is not known those
    /// alone that ask for a path.
    pub(crate) fn candidates(&self, asked: Asked<'_>, path_is_known: bool) -> Candidates {
        let holds = |rule: &Rule| {
            let path = rule.path.as_ref();
            path.map_or(path_is_known, |p| {
                pattern::matches(p, asked.path.as_bytes())
            }) && rule.method.as_ref().is_none_or(|m| m == asked.method)
                && has_header(rule, asked.headers)
        };
        let set = self.all().filter(|(_, one)| holds(&one.rule));
        Candidates(set.fold(0, |set, (i, _)| set | 1_u32.wrapping_shl(i)))
    }

    /// What the first says that asks for nothing in the body.
    pub(crate) fn by_headers(&self, candidates: Candidates) -> Option<RequestClass> {
        let mut rules = self.all().filter(|(i, _)| candidates.has(*i));
        let decided = rules.find(|(_, one)| !one.rule.reads_body());
        decided.map(|(_, one)| one.class)
    }

    /// What the first says whose conditions all hold.
    pub(crate) fn by_body(
        &self,
        candidates: Candidates,
        scan: &Scan,
        model: Option<&str>,
    ) -> Option<RequestClass> {
        let holds = |one: &Compiled| {
            let named = |pattern: &String| {
                model.is_some_and(|model| pattern::matches(pattern, model.as_bytes()))
            };
            let stands = |place| stands(scan, place, one.rule.equals.as_ref());
            one.rule.model.as_ref().is_none_or(named) && one.place.is_none_or(stands)
        };
        let mut rules = self.all().filter(|(i, _)| candidates.has(*i));
        rules.find(|(_, one)| holds(one)).map(|(_, one)| one.class)
    }

    /// The places that these rules look at.
    pub(crate) fn places(&self, candidates: Candidates) -> impl Iterator<Item = usize> {
        let rules = self.all().filter(move |(i, _)| candidates.has(*i));
        rules.filter_map(|(_, one)| one.place)
    }
}

/// Whether a place has something other than null, and that if it is said what.
fn stands(scan: &Scan, place: usize, equals: Option<&Value>) -> bool {
    let Some(found) = scan.found(place) else {
        return false;
    };
    let Some(equals) = equals else {
        return found.kind != Kind::Null;
    };
    let value = found
        .raw
        .and_then(|raw| serde_json::from_slice::<Value>(raw).ok());
    value.is_some_and(|value| {
        let numbers = value.as_f64().zip(equals.as_f64());
        value == *equals || numbers.is_some_and(|(a, b)| a.to_bits() == b.to_bits())
    })
}

fn has_header(rule: &Rule, headers: &[(&str, &[u8])]) -> bool {
    let Some(name) = &rule.header else {
        return true;
    };
    headers.iter().any(|(n, value)| {
        let fits = |p: &String| pattern::matches(p, value);
        n == name && rule.value.as_ref().is_none_or(fits)
    })
}
