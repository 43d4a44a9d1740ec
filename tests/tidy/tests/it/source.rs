//! What stands in the source, and in any file.

use std::io::Write as _;

use weir_tidy::{comments, files::File, header_names, length, purity, secrets};

use crate::{check, check_found, repository};

#[test]
fn cores_have_no_clock_and_no_environment() {
    check(
        "the source of cores and contracts names no clock, environment, network, disk or thread",
        &purity::source_violations(repository()),
    );
}

#[test]
fn a_core_with_a_clock_is_found() {
    let text = "//! A core.
use std::{collections::BTreeMap, env, time::{Duration, SystemTime}};
use std::time::Duration as Wait;
/// Not std::fs::read, which is a comment.
fn f() -> &'static str {
    let t = std::time::Instant::now();
    let u = time::OffsetDateTime::now();
    std::fs::read(\"x\"); std::net::lookup(); ::std::thread::spawn(|| 1);
    \"std::env::var\"
}
#[cfg(test)]
mod tests {
    use std::fs;
    fn t() { std::time::Instant::now(); }
}
";
    for directory in ["plugins/a/core", "router-service/core", "contracts/wire"] {
        let file = File::sample(&format!("{directory}/src/lib.rs"), text);
        check_found(
            &purity::source_violations(&[file]),
            &[
                (2, "std::env"),
                (2, "std::time::SystemTime"),
                (6, "std::time::Instant::now"),
                (7, "time::OffsetDateTime::now"),
                (8, "std::fs::read"),
                (8, "std::net::lookup"),
                (8, "std::thread::spawn"),
            ],
        );
    }
    let elsewhere = [
        File::sample("router-service/server/src/main.rs", text),
        File::sample("contracts/wire/build.rs", text),
    ];
    check_found(&purity::source_violations(&elsewhere), &[]);
}

#[test]
fn a_core_that_makes_keys_is_found() {
    let text = "//! A core.
use jwt_simple::algorithms::{HS256Key, RSAPublicKey};
use jwt_simple::prelude::*;
use jwt_simple::{algorithms::*, claims::Claims, token::Token};
fn f(generate: u8) {
    HS256Key::generate(); HS256Key::generate_with_salt(); RSAPublicKey::from_pem(\"\");
    p256::ecdsa::SigningKey::random(&mut x);
    superboring::reexports::rand::thread_rng(); jwt_simple::reexports::coarsetime::Clock::update();
    generate(); generated::code(); self.generate
}
#[cfg(test)]
mod tests { fn t() { HS256Key::generate(); } }
";
    check_found(
        &purity::source_violations(&[File::sample("plugins/a/core/src/lib.rs", text)]),
        &[
            (3, "jwt_simple::prelude::*"),
            (4, "jwt_simple::claims::Claims"),
            (4, "jwt_simple::token::Token"),
            (6, "HS256Key::generate"),
            (6, "HS256Key::generate_with_salt"),
            (7, "p256::ecdsa::SigningKey::random"),
            (8, "superboring::reexports::rand"),
            (8, "jwt_simple::reexports::coarsetime"),
        ],
    );
    let elsewhere = [File::sample("tests/fakes/src/lib.rs", text)];
    check_found(&purity::source_violations(&elsewhere), &[]);
}

#[test]
fn a_test_module_in_its_own_file_is_a_test() {
    let files = [
        File::sample(
            "plugins/a/core/src/lib.rs",
            "//! x\n#[cfg(test)]\nmod proofs;\nmod real;\n",
        ),
        File::sample("plugins/a/core/src/proofs.rs", "//! x\nuse std::fs;\n"),
        File::sample("plugins/a/core/src/real.rs", "//! x\nuse std::fs;\n"),
        File::sample(
            "plugins/a/core/src/b/mod.rs",
            "//! x\n#[cfg(test)]\nmod tests;\n",
        ),
        File::sample("plugins/a/core/src/b/tests.rs", "//! x\nuse std::fs;\n"),
    ];
    check_found(
        &purity::source_violations(&files),
        &[(2, "core/src/real.rs")],
    );
}

#[test]
fn modules_say_what_they_are_for() {
    check(
        "every Rust file starts with //! and what it is for",
        &comments::violations(repository()),
    );
}

#[test]
fn a_silent_module_is_found() {
    let files = [
        File::sample("a/src/said.rs", "//! What it is for.\n"),
        File::sample("a/src/empty.rs", "//!\n//! Later.\n"),
        File::sample("a/src/late.rs", "\n//! Later.\n"),
        File::sample("a/src/none.rs", ""),
        File::sample("a/notes.txt", ""),
    ];
    check_found(
        &comments::violations(&files),
        &[(1, "empty.rs"), (1, "late.rs"), (1, "none.rs")],
    );
}

#[test]
fn files_are_short() {
    for warning in length::longer_than(length::LONG, repository()) {
        // Past the test runner's capture: a warning that nobody sees is none.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    check(
        "a file has at most 600 lines, and should have 400",
        &length::longer_than(length::TOO_LONG, repository()),
    );
}

#[test]
fn a_long_file_is_found() {
    let file = |lines: usize| {
        [File::sample(
            "tests/a/tests/table.rs",
            &"//\n".repeat(lines),
        )]
    };
    check_found(&length::longer_than(length::TOO_LONG, &file(600)), &[]);
    check_found(
        &length::longer_than(length::TOO_LONG, &file(601)),
        &[(0, "601 lines")],
    );
    check_found(
        &length::longer_than(length::LONG, &file(401)),
        &[(0, "401 lines")],
    );
}

#[test]
fn header_names_have_one_home() {
    check(
        "the names of Weir's headers stand in contracts/wire/src/headers.rs alone",
        &header_names::violations(repository()),
    );
}

#[test]
fn a_spelt_out_header_is_found() {
    let text = "//! x-tenant-id in a comment is none.
const A: &str = \"X-Tenant-ID\";
#[error(\"x-weir-tenant-context: refused\")]
fn f() { g(b\"x-request-class\", r#\"a
x-tenant-plan\"#, 'x'); }
#[cfg(test)]
mod tests { const T: &str = \"x-tenant-id\"; }
";
    let file = File::sample("plugins/a/filter/src/lib.rs", text);
    check_found(
        &header_names::violations(&[file]),
        &[
            (2, "x-tenant-id"),
            (3, "x-weir-"),
            (4, "x-request-class"),
            (5, "x-tenant-plan"),
        ],
    );
    let home = [
        File::sample("contracts/wire/src/headers.rs", text),
        File::sample("tests/gateway/src/lib.rs", text),
        File::sample("router-service/server/tests/it/main.rs", text),
    ];
    check_found(&header_names::violations(&home), &[]);
}

#[test]
fn nothing_names_this_machine_or_a_secret() {
    check(
        "no file holds a path of one machine, a registry's host or a secret",
        &secrets::violations(repository()),
    );
}

#[test]
fn a_secret_is_found() {
    // In pieces, so that this file keeps the rule.
    let lines = [
        ["see /ro", "ot/x"].concat(),
        ["\"/wo", "rk/main\""].concat(),
        ["https://index.crates", ".io"].concat(),
        ["url = https://pypi", ".org/simple"].concat(),
        ["sk_li", "ve_abcdefgh123"].concat(),
        ["AKI", "AABCDEFGHIJKLMNOP"].concat(),
        ["-----BEGIN RSA PRIVA", "TE KEY-----"].concat(),
        ["file:///ro", "ot/y"].concat(),
    ];
    let file = File::sample("notes.txt", &lines.join("\n"));
    check_found(
        &secrets::violations(&[file]),
        &[
            (1, "/ro"),
            (2, "/wo"),
            (3, "registry"),
            (4, "registry"),
            (5, "secret"),
            (6, "AWS"),
            (7, "private key"),
            (8, "/ro"),
        ],
    );
    let fine = "net/work/x target/root/y registry+https://github.com/rust-lang/crates.io-index \
                sk_test_1 sk_live_ AKIA -----BEGIN PUBLIC KEY-----";
    check_found(&secrets::violations(&[File::sample("fine", fine)]), &[]);
}
