//! What the filters ask of their host.

use weir_tidy::{Violation, files::File, imports, manifests};

use crate::{check, check_found, repository};

#[test]
fn filters_import_what_is_allowed() {
    let document = repository().iter().find(|f| f.path == imports::DOCUMENT);
    let filters = manifests::filters(repository());
    let built = imports::built(&weir_tidy::root(), &filters);
    let found: Vec<Violation> = match (imports::allowed(document), built) {
        (Ok(allowed), Ok(modules)) => modules
            .iter()
            .flat_map(|(path, bytes)| imports::violations(path, bytes, &allowed))
            .collect(),
        (allowed, built) => allowed.err().into_iter().chain(built.err()).collect(),
    };
    check("a filter imports only what ARCHITECTURE.md lists", &found);
}

#[test]
fn the_imports_of_the_filters_are_seen() {
    let filters = manifests::filters(repository());
    let built = imports::built(&weir_tidy::root(), &filters).unwrap_or_else(|v| panic!("{v}"));
    for (path, bytes) in built {
        let found = imports::imports(&path, &bytes).unwrap();
        for name in ["env.proxy_log", "wasi_snapshot_preview1.environ_get"] {
            assert!(found.contains(name), "{path}: {name} in {found:?}");
        }
    }
}

/// A module that imports `env.proxy_log` and `env.proxy_grpc_call`.
fn module() -> Vec<u8> {
    let mut types = vec![1, 4, 1, 0x60, 0, 0];
    let mut names = vec![2];
    for name in ["proxy_log", "proxy_grpc_call"] {
        names.extend([3]);
        names.extend(b"env");
        names.push(u8::try_from(name.len()).unwrap());
        names.extend(name.as_bytes());
        names.extend([0, 0]);
    }
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.append(&mut types);
    bytes.extend([2, u8::try_from(names.len()).unwrap()]);
    bytes.append(&mut names);
    bytes
}

fn document(list: &str) -> File {
    let text = format!("# A\n{}\n{list}\n{}\n", imports::BEGIN, imports::END);
    File::sample(imports::DOCUMENT, &text)
}

#[test]
fn an_import_that_is_not_allowed_is_found() {
    let one = document("- `env.proxy_log`: the log\n");
    let allowed = imports::allowed(Some(&one)).unwrap();
    let found = imports::violations("target/wasm/a.wasm", &module(), &allowed);
    check_found(&found, &[(0, "env.proxy_grpc_call")]);

    let both = document("\n* `env.proxy_log`\n* `env.proxy_grpc_call` (not on Kong)\n");
    let allowed = imports::allowed(Some(&both)).unwrap();
    check_found(&imports::violations("a.wasm", &module(), &allowed), &[]);

    let broken = module().into_iter().take(20).collect::<Vec<u8>>();
    assert_eq!(imports::violations("a.wasm", &broken, &allowed).len(), 1);
}

#[test]
fn a_document_without_the_list_is_found() {
    let missing = imports::allowed(None).unwrap_err();
    check_found(&[missing], &[(0, "ARCHITECTURE.md: is missing")]);
    for text in ["# A", imports::BEGIN, "- `env.proxy_log`"] {
        let file = File::sample(imports::DOCUMENT, text);
        let found = imports::allowed(Some(&file)).unwrap_err();
        check_found(&[found], &[(0, "lists nothing")]);
    }
}

#[test]
fn what_is_not_built_is_asked_for() {
    let nowhere = tempfile::tempdir().unwrap();
    let found = imports::built(nowhere.path(), &["a".to_owned()]).unwrap_err();
    check_found(
        &[found],
        &[(0, "target/wasm/a.wasm: is missing: run make setup wasm")],
    );
}
