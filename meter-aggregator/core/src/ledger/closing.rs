//! Closing the books of a ledger with shards: an operator's word is a number, which each
//! shard's holder follows for its shard, whoever that is by then.
//!
//! The operator [asks](ask), and waits until no shard is [left](left). A holder looks now
//! and then whether its shard is [wanted](wanted): then it books all that its lane has, the
//! waiting too, plans and sends, and says in a transaction of its own that it is
//! [done](done). A holder that dies before leaves the number to the next one; two words that
//! come together are one.

use super::Books;
use crate::lease::Shard;

/// The number of the last word, by [`Books::progress`].
pub const CLOSE: &str = "close";

/// The number of the last word that a shard has followed, by [`Books::progress`].
fn closed(shard: Shard) -> String {
    format!("closed/{shard}")
}

/// Takes an operator's word that the books are to be closed, and gives its number. Always
/// in a transaction on shard 0, so that no two words get one number.
///
/// # Errors
/// Where the store fails.
pub fn ask<B: Books>(books: &mut B) -> Result<i64, B::Error> {
    let number = books.progress(CLOSE)?.saturating_add(1);
    books.set_progress(CLOSE, number)?;
    Ok(number)
}

/// The word that a shard has yet to follow, if there is one.
///
/// # Errors
/// Where the store fails.
pub fn wanted<B: Books>(books: &mut B, shard: Shard) -> Result<Option<i64>, B::Error> {
    let number = books.progress(CLOSE)?;
    let done = books.progress(&closed(shard))?;
    Ok((done < number).then_some(number))
}

/// Says that a shard has followed the word of that number, which its holder saw before it
/// began.
///
/// # Errors
/// Where the store fails.
pub fn done<B: Books>(books: &mut B, shard: Shard, number: i64) -> Result<(), B::Error> {
    let name = closed(shard);
    match books.progress(&name)? < number {
        true => books.set_progress(&name, number),
        false => Ok(()),
    }
}

/// The shards that have yet to follow the word of that number.
///
/// # Errors
/// Where the store fails.
pub fn left<B: Books>(books: &mut B, number: i64) -> Result<Vec<Shard>, B::Error> {
    let mut left = Vec::new();
    for shard in Shard::all() {
        if books.progress(&closed(shard))? < number {
            left.push(shard);
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::ledger::memory::Memory;

    #[test]
    fn each_shard_follows_a_word_once() {
        let mut memory = Memory::default();
        let shard = |n| Shard::new(n).unwrap();
        memory.run(|books| {
            assert_eq!(wanted(books, shard(3))?, None);
            let first = ask(books)?;
            assert_eq!(left(books, first)?.len(), 16);
            assert_eq!(wanted(books, shard(3))?, Some(first));
            for n in (0..16).filter(|n| *n != 5) {
                done(books, shard(n), first)?;
            }
            assert_eq!(left(books, first)?, [shard(5)]);
            // Another word, while one is behind: he follows both together.
            let second = ask(books)?;
            assert_eq!(wanted(books, shard(3))?, Some(second));
            assert_eq!(wanted(books, shard(5))?, Some(second));
            done(books, shard(5), second)?;
            assert_eq!(left(books, first)?, []);
            assert_eq!(left(books, second)?.len(), 15);
            // Who began before hears of the later one still.
            done(books, shard(5), first)?;
            assert_eq!(wanted(books, shard(5))?, None);
            done(books, shard(3), first)?;
            assert_eq!(wanted(books, shard(3))?, Some(second));
            Ok(())
        });
    }
}
