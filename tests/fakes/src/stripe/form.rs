//! Stripe's request encoding: a URL-encoded form whose keys nest with brackets.

use std::collections::BTreeSet;

use super::error::StripeError;

/// A form's leaves in the order sent, with `a[]` turned into `a[0]`, `a[1]`, ...
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    leaves: Vec<Leaf>,
}

/// One value and the segments of its key: `a[b][0]` has `a`, `b` and `0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) key: String,
    pub(super) segments: Vec<String>,
    pub(super) value: String,
}

impl Form {
    /// Reads a query or a body; of a key that comes twice, the last counts.
    pub(super) fn parse(encoded: &[u8]) -> Result<Self, StripeError> {
        let mut form = Self::default();
        for (key, value) in url::form_urlencoded::parse(encoded) {
            let segments = segments(&key).ok_or_else(|| StripeError::malformed_key(&key))?;
            form.insert(segments, value.into_owned());
        }
        for leaf in &form.leaves {
            let inside = |other: &&Leaf| {
                other.segments.len() > leaf.segments.len()
                    && other.segments.starts_with(&leaf.segments)
            };
            if form.leaves.iter().any(|other| inside(&other)) {
                return Err(StripeError::malformed_key(&leaf.key));
            }
        }
        Ok(form)
    }

    /// Adds what the other form has.
    pub(super) fn merge(mut self, other: Self) -> Self {
        for leaf in other.leaves {
            self.insert(leaf.segments, leaf.value);
        }
        self
    }

    pub(super) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The value under this key, as `a[b][c]`.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.leaves
            .iter()
            .find(|leaf| leaf.key == key)
            .map(|leaf| leaf.value.as_str())
    }

    /// The value, or the error that it is missing.
    pub(super) fn need(&self, key: &str) -> Result<&str, StripeError> {
        self.get(key).ok_or_else(|| StripeError::missing(key))
    }

    /// A value that was checked to be an integer.
    pub(super) fn integer(&self, key: &str) -> Option<i64> {
        self.get(key).and_then(|value| value.parse().ok())
    }

    /// A value that was checked to be `true` or `false`.
    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        self.get(key).map(|value| value == "true")
    }

    /// Whether anything is given under `parent[...]`.
    pub(super) fn has(&self, parent: &str) -> bool {
        self.children(parent).next().is_some()
    }

    /// Names and values directly under `parent[...]`.
    pub(super) fn children<'a>(
        &'a self,
        parent: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.leaves
            .iter()
            .filter_map(move |leaf| match leaf.segments.as_slice() {
                [first, second, ..] if first == parent => {
                    Some((second.as_str(), leaf.value.as_str()))
                }
                _ => None,
            })
    }

    /// The indices under `parent[...]`, in numerical order.
    pub(super) fn indices(&self, parent: &str) -> Vec<usize> {
        let indices: BTreeSet<usize> = self
            .children(parent)
            .filter_map(|(name, _)| name.parse().ok())
            .collect();
        indices.into_iter().collect()
    }

    /// The same form, however its keys were ordered and indices written.
    pub(super) fn fingerprint(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self
            .leaves
            .iter()
            .map(|leaf| (leaf.key.clone(), leaf.value.clone()))
            .collect();
        all.sort();
        all
    }

    fn insert(&mut self, mut segments: Vec<String>, value: String) {
        while let Some(hole) = segments.iter().position(String::is_empty) {
            let index = self.next_index(&segments, hole).to_string();
            if let Some(segment) = segments.get_mut(hole) {
                *segment = index;
            }
        }
        let key = join(&segments);
        match self.leaves.iter_mut().find(|leaf| leaf.key == key) {
            Some(leaf) => leaf.value = value,
            None => self.leaves.push(Leaf {
                key,
                segments,
                value,
            }),
        }
    }

    /// `a[]=` opens an element each time; `a[][b]=` only where the last one has a `b` already.
    fn next_index(&self, segments: &[String], hole: usize) -> usize {
        let (before, after) = segments.split_at_checked(hole).unwrap_or((segments, &[]));
        let after = after.get(1..).unwrap_or_default();
        let elements = self
            .leaves
            .iter()
            .filter(|leaf| leaf.segments.starts_with(before));
        let index = |leaf: &Leaf| {
            leaf.segments
                .get(hole)
                .and_then(|index| index.parse::<usize>().ok())
        };
        let Some(last) = elements.clone().filter_map(index).max() else {
            return 0;
        };
        let after_hole = hole.saturating_add(1);
        let taken = elements
            .filter(|leaf| index(leaf) == Some(last))
            .any(|leaf| leaf.segments.get(after_hole..).unwrap_or_default() == after);
        if taken || after.is_empty() {
            last.saturating_add(1)
        } else {
            last
        }
    }
}

/// `a`, `b`, `0` as `a[b][0]`.
fn join(segments: &[String]) -> String {
    let mut key = String::new();
    for (index, segment) in segments.iter().enumerate() {
        if index == 0 {
            key.push_str(segment);
        } else {
            key.push_str(&format!("[{segment}]"));
        }
    }
    key
}

/// The segments of a key, or nothing if its brackets don't match.
fn segments(key: &str) -> Option<Vec<String>> {
    let (first, mut rest) = key.split_at(key.find('[').unwrap_or(key.len()));
    if first.is_empty() || first.contains(']') {
        return None;
    }
    let mut segments = vec![first.to_owned()];
    while !rest.is_empty() {
        let (inside, after) = rest.strip_prefix('[')?.split_once(']')?;
        if inside.contains('[') {
            return None;
        }
        segments.push(inside.to_owned());
        rest = after;
    }
    Some(segments)
}
