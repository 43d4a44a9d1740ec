//! The names of Weir's headers have one home: `contracts/wire`.

use crate::{Violation, files::File, rust};

/// What starts a name of ours. In any case: HTTP does not tell them apart.
const NAMES: [&str; 4] = ["x-tenant-id", "x-tenant-plan", "x-request-class", "x-weir-"];

/// String literals in shipped source that spell a name out.
#[must_use]
pub fn violations(files: &[File]) -> Vec<Violation> {
    let elsewhere: Vec<File> = files
        .iter()
        .filter(|f| !f.path.starts_with("contracts/wire/") && !f.path.starts_with("tests/"))
        .cloned()
        .collect();
    let sources = match rust::shipped(&elsewhere) {
        Ok(sources) => sources,
        Err(violation) => return vec![violation],
    };
    let mut found = Vec::new();
    for source in sources {
        for literal in source.literals() {
            let text = literal.text.to_ascii_lowercase();
            for name in NAMES {
                if let Some(offset) = text.find(name) {
                    let before = crate::line_at(&text, offset).saturating_sub(1);
                    found.push(Violation::new(
                        &source.path,
                        literal.line.saturating_add(before),
                        format!("spells {name} out; use the constant in weir_wire::headers"),
                    ));
                }
            }
        }
    }
    found
}
