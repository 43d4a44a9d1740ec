//! What the documents name.

use weir_tidy::{documents, files::File};

use crate::{check, check_found, repository};

#[test]
fn documents_name_what_exists() {
    check(
        "README, ARCHITECTURE and CONTRIBUTING exist, and so does every path that they name",
        &documents::violations(repository()),
    );
}

fn sample(readme: &str) -> Vec<File> {
    let mut files: Vec<File> = [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "plugins/a/core/src/lib.rs",
        "plugins/b/core/src/lib.rs",
        "envoy/weir.yaml",
    ]
    .map(|path| File::sample(path, ""))
    .into();
    files.push(File::sample("README.md", readme));
    files
}

#[test]
fn a_path_that_leads_nowhere_is_found() {
    for (text, missing) in [
        ("See `plugins/c`.", "plugins/c"),
        ("See `plugins/c/`.", "plugins/c"),
        ("See `plugins/a/core/src/lab.rs:12`.", "lab.rs"),
        ("See `plugins/{a,c}/core`.", "plugins/c/core"),
        ("See `plugins/*/filter`.", "plugins/*/filter"),
        ("See [x](envoy/none.yaml#top).", "envoy/none.yaml"),
        ("See [x](../out.md).", "../out.md"),
    ] {
        check_found(&documents::violations(&sample(text)), &[(1, missing)]);
    }
}

#[test]
fn a_path_that_leads_somewhere_is_not() {
    let text = "`plugins/a/` `plugins/{a,b}/core` `plugins/*/core/src/*.rs` `plugins/**/lib.rs`
`./envoy/weir.yaml` `plugins/<name>/core` `target/wasm/x.wasm` `.venv/bin/envoy` `/v1/models`
`application/json` `plugins/a/core/src/lib.rs::Config` `cp envoy/x y` [a](envoy) [b](#top)
[c](https://example.com/envoy/none.yaml) [d](target/doc/x.html)

```sh
cat envoy/none.yaml
```
";
    check_found(&documents::violations(&sample(text)), &[]);
}

#[test]
fn a_document_beside_the_code_may_name_it_from_there() {
    let mut files = sample("");
    let text = "[up](../README.md) [here](weir.yaml) [gone](../weir.yaml) `envoy/weir.yaml`";
    files.push(File::sample("envoy/README.md", text));
    check_found(
        &documents::violations(&files),
        &[(1, "weir.yaml does not exist")],
    );
}

#[test]
fn a_missing_document_is_found() {
    check_found(
        &documents::violations(&[]),
        &[
            (0, "README.md: is missing"),
            (0, "ARCHITECTURE.md: is missing"),
            (0, "CONTRIBUTING.md: is missing"),
        ],
    );
}
