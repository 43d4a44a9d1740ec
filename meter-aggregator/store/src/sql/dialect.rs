//! What Postgres is told in the place of SQLite's words.

/// Stands in a text where rows of one shard are meant: Postgres keeps to the shard of the
/// transaction there, SQLite has one process and no shards.
macro_rules! of_shard {
    () => {
        "/*of the shard*/"
    };
}
pub(crate) use of_shard;

/// The shard of the transaction, as Postgres knows it.
pub const SHARD: &str = "current_setting('weir.shard')::smallint";

/// A text of SQLite's for Postgres: `?1` is `$1`, `INDEXED BY` and the `+` that keeps
/// SQLite from an index go, `instr` is `strpos`.
pub fn postgres(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len().saturating_add(64));
    let mut rest = sql;
    while let Some(at) = rest.find(['?', 'I', '/', 'i', '+']) {
        let (before, here) = rest.split_at(at);
        out.push_str(before);
        rest = here;
        let (written, taken) = replaced(&out, here);
        out.push_str(&written);
        rest = rest.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// What stands for the beginning of `here`, and how many bytes of it that is.
fn replaced(before: &str, here: &str) -> (String, usize) {
    const INDEXED: &str = "INDEXED BY ";
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let first = here.chars().next().unwrap_or(' ');
    let after = here.get(1..).unwrap_or_default();
    let begins_word = !before.ends_with(is_word);
    if let Some(name) = here.strip_prefix(INDEXED) {
        let name = name.find(|c| !is_word(c)).unwrap_or(name.len());
        return (String::new(), INDEXED.len().saturating_add(name));
    }
    if here.starts_with(of_shard!()) {
        return (format!("AND shard = {SHARD}"), of_shard!().len());
    }
    if begins_word && here.starts_with("instr(") {
        return ("strpos(".to_owned(), "instr(".len());
    }
    let is_plus = first == '+' && after.starts_with(is_word) && before.ends_with(' ');
    match first {
        '?' => ("$".to_owned(), 1),
        '+' if is_plus => (String::new(), 1),
        _ => (first.to_string(), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlites_words_are_said_as_postgres_does() {
        let check = |sql: &str, expected: &str| assert_eq!(postgres(sql), expected);
        check(
            "SELECT a FROM t INDEXED BY t_open\n WHERE a = ?1 AND ?12 IS NULL",
            "SELECT a FROM t \n WHERE a = $1 AND $12 IS NULL",
        );
        check("a AND +is_open", "a AND is_open");
        check("total = t.total + ?4", "total = t.total + $4");
        check("instr(x, ?2) > x / 3600", "strpos(x, $2) > x / 3600");
        check(
            concat!("WHERE a ", of_shard!(), " LIMIT 1"),
            "WHERE a AND shard = current_setting('weir.shard')::smallint LIMIT 1",
        );
        check("täglich ?1 é+?", "täglich $1 é+$");
        check("INSERT INTO IN I", "INSERT INTO IN I");
    }
}
