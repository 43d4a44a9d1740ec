//! Reads Rust source as tokens: what is in a comment or in a test is left out.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{Violation, files::File};

/// One file's tokens without doc comments and without what is `#[cfg(test)]`.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file's path.
    pub path: String,
    trees: Vec<TokenTree>,
}

/// A string literal as it stands in the source, with its quotes.
#[derive(Debug, Clone)]
pub struct Literal {
    /// Where it begins, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// A path such as `std::time::Instant`; a `use` with braces gives several.
#[derive(Debug, Clone)]
pub struct Path {
    /// Where it begins, from 1.
    pub line: usize,
    /// Its parts.
    pub segments: Vec<String>,
}

impl Source {
    /// Reads one file.
    ///
    /// # Errors
    /// Where it is not Rust.
    pub fn read(file: &File) -> Result<Self, Violation> {
        let stream: TokenStream = file.text.parse().map_err(|e: proc_macro2::LexError| {
            Violation::new(&file.path, e.span().start().line, "not Rust")
        })?;
        Ok(Self {
            path: file.path.clone(),
            trees: product(stream),
        })
    }

    /// The tokens of the file's top level.
    #[must_use]
    pub fn trees(&self) -> &[TokenTree] {
        &self.trees
    }

    /// Every string literal.
    #[must_use]
    pub fn literals(&self) -> Vec<Literal> {
        let mut found = Vec::new();
        literals(&self.trees, &mut found);
        found
    }

    /// Every path.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut found = Vec::new();
        paths(&self.trees, &[], &mut found);
        found
    }
}

/// Reads the files that are part of what ships: not those of `tests`
/// directories, and not those of a module declared `#[cfg(test)]`.
///
/// # Errors
/// Where one is not Rust.
pub fn shipped(files: &[File]) -> Result<Vec<Source>, Violation> {
    let rust: Vec<&File> = files.iter().filter(|f| f.is_rust()).collect();
    let mut test_modules = BTreeSet::new();
    for file in &rust {
        let stream: TokenStream = file.text.parse().unwrap_or_default();
        let home = file.path.trim_end_matches(".rs");
        let home = ["/mod", "/lib", "/main"]
            .iter()
            .find_map(|root| home.strip_suffix(root))
            .unwrap_or(home);
        for name in test_module_names(stream) {
            test_modules.insert(format!("{home}/{name}"));
        }
    }
    let is_test = |path: &str| {
        path.split('/')
            .any(|part| part == "tests" || part == "benches")
            || test_modules.iter().any(|module| {
                path.strip_prefix(module.as_str())
                    .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            })
    };
    rust.into_iter()
        .filter(|f| !is_test(&f.path))
        .map(Source::read)
        .collect()
}

/// The modules that `#[cfg(test)] mod name;` declares.
fn test_module_names(stream: TokenStream) -> Vec<String> {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut names = Vec::new();
    let mut rest = trees.as_slice();
    while let [_, tail @ ..] = rest {
        if let [
            TokenTree::Punct(hash),
            TokenTree::Group(attribute),
            item @ ..,
        ] = rest
            && hash.as_char() == '#'
            && is_cfg_test(attribute.stream())
            && let [
                TokenTree::Ident(keyword),
                TokenTree::Ident(name),
                TokenTree::Punct(end),
                ..,
            ] = item
            && keyword == "mod"
            && end.as_char() == ';'
        {
            names.push(name.to_string());
        }
        rest = tail;
    }
    names
}

/// One level of tokens without doc attributes and without test items.
#[must_use]
pub fn product(stream: TokenStream) -> Vec<TokenTree> {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut kept = Vec::new();
    let mut rest = trees.as_slice();
    loop {
        match rest {
            [
                TokenTree::Punct(hash),
                TokenTree::Punct(bang),
                TokenTree::Group(attribute),
                tail @ ..,
            ] if hash.as_char() == '#' && bang.as_char() == '!' => {
                if is_cfg_test(attribute.stream()) {
                    return Vec::new();
                }
                rest = tail;
            }
            [
                TokenTree::Punct(hash),
                TokenTree::Group(attribute),
                tail @ ..,
            ] if hash.as_char() == '#' && attribute.delimiter() == Delimiter::Bracket => {
                if is_cfg_test(attribute.stream()) {
                    rest = after_item(tail);
                } else {
                    if !is_doc(attribute.stream()) {
                        kept.extend([
                            TokenTree::Punct(hash.clone()),
                            TokenTree::Group(attribute.clone()),
                        ]);
                    }
                    rest = tail;
                }
            }
            [other, tail @ ..] => {
                kept.push(other.clone());
                rest = tail;
            }
            [] => return kept,
        }
    }
}

/// What follows an item: its first `;` or `{}` ends it.
fn after_item(mut rest: &[TokenTree]) -> &[TokenTree] {
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            TokenTree::Punct(p) if p.as_char() == ';' => break,
            TokenTree::Group(g) if g.delimiter() == Delimiter::Brace => break,
            _ => {}
        }
    }
    rest
}

fn is_doc(attribute: TokenStream) -> bool {
    matches!(attribute.into_iter().next(), Some(TokenTree::Ident(name)) if name == "doc")
}

/// `cfg(test)` and `cfg(all(test, ..))`; not `cfg(not(test))`.
fn is_cfg_test(attribute: TokenStream) -> bool {
    let text: String = attribute
        .to_string()
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

fn literals(trees: &[TokenTree], found: &mut Vec<Literal>) {
    for tree in trees {
        match tree {
            TokenTree::Group(group) => literals(&product(group.stream()), found),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if text.ends_with(['"', '#']) {
                    found.push(Literal {
                        line: literal.span().start().line,
                        text,
                    });
                }
            }
            _ => {}
        }
    }
}

fn paths(trees: &[TokenTree], prefix: &[String], found: &mut Vec<Path>) {
    let mut rest = trees;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            TokenTree::Group(group) => paths(&product(group.stream()), prefix, found),
            // `use a as b`: b names nothing new.
            TokenTree::Ident(name) if name == "as" => {
                if let [TokenTree::Ident(_), after @ ..] = rest {
                    rest = after;
                }
            }
            TokenTree::Ident(name) => {
                let mut segments = prefix.to_vec();
                if name != "self" {
                    segments.push(name.to_string());
                }
                let line = name.span().start().line;
                rest = path(segments, line, rest, found);
            }
            _ => {}
        }
    }
}

/// Follows one path to its end and returns what comes after it.
fn path<'a>(
    mut segments: Vec<String>,
    line: usize,
    mut rest: &'a [TokenTree],
    found: &mut Vec<Path>,
) -> &'a [TokenTree] {
    while let [TokenTree::Punct(a), TokenTree::Punct(b), next, after @ ..] = rest {
        if a.as_char() != ':' || b.as_char() != ':' {
            break;
        }
        match next {
            TokenTree::Ident(name) => segments.push(name.to_string()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                paths(&product(group.stream()), &segments, found);
                return after;
            }
            TokenTree::Punct(star) if star.as_char() == '*' => segments.push("*".to_owned()),
            _ => break,
        }
        rest = after;
    }
    found.push(Path { line, segments });
    rest
}
