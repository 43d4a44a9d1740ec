//! What statements are given.

use std::borrow::Cow;

use sqlx::postgres::PgArguments;

use super::{Error, Result};

/// One parameter. What is none has its type, too: Postgres wants to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Given<'a> {
    Integer(Option<i64>),
    Boolean(Option<bool>),
    Text(Option<&'a str>),
    Bytes(Option<&'a [u8]>),
}

/// What can be a parameter.
pub trait Param {
    /// It, as the databases take it.
    fn given(&self) -> Given<'_>;

    /// None of its kind.
    fn none() -> Given<'static>
    where
        Self: Sized;
}

macro_rules! param {
    ($type:ty, $kind:ident, |$value:ident| $given:expr $(, $n:ident)?) => {
        impl$(<const $n: usize>)? Param for $type {
            fn given(&self) -> Given<'_> {
                let $value = self;
                Given::$kind(Some($given))
            }

            fn none() -> Given<'static> {
                Given::$kind(None)
            }
        }
    };
}
param!(i64, Integer, |value| *value);
param!(i32, Integer, |value| (*value).into());
param!(u32, Integer, |value| (*value).into());
param!(bool, Boolean, |value| *value);
param!(&str, Text, |value| value);
param!(String, Text, |value| value);
param!(Vec<u8>, Bytes, |value| value);
param!(&[u8], Bytes, |value| value);
param!([u8; N], Bytes, |value| value, N);

impl<T: Param> Param for &T {
    fn given(&self) -> Given<'_> {
        (**self).given()
    }

    fn none() -> Given<'static> {
        T::none()
    }
}

impl<T: Param> Param for Option<T> {
    fn given(&self) -> Given<'_> {
        match self {
            Some(value) => value.given(),
            None => T::none(),
        }
    }

    fn none() -> Given<'static> {
        T::none()
    }
}

/// Parameters of a statement, of whatever kinds.
macro_rules! params {
    ($($param:expr),* $(,)?) => {
        &[$(&$param as &dyn $crate::sql::Param),*] as &[&dyn $crate::sql::Param]
    };
}
pub(crate) use params;

/// All that a statement is given.
pub trait Params {
    /// Gives each in turn.
    fn each(&self, take: &mut dyn FnMut(Given<'_>) -> Result<()>) -> Result<()>;
}

impl Params for &[&dyn Param] {
    fn each(&self, take: &mut dyn FnMut(Given<'_>) -> Result<()>) -> Result<()> {
        self.iter().try_for_each(|param| take(param.given()))
    }
}

impl Params for [&dyn Param; 0] {
    fn each(&self, _: &mut dyn FnMut(Given<'_>) -> Result<()>) -> Result<()> {
        Ok(())
    }
}

macro_rules! array {
    ($($n:literal),*) => {
        $(impl<T: Param> Params for [T; $n] {
            fn each(&self, take: &mut dyn FnMut(Given<'_>) -> Result<()>) -> Result<()> {
                self.iter().try_for_each(|param| take(param.given()))
            }
        })*
    };
}
array!(1, 2, 3);

impl rusqlite::ToSql for Given<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        let value = match *self {
            Self::Integer(value) => value.map(ValueRef::Integer),
            Self::Boolean(value) => value.map(|value| ValueRef::Integer(value.into())),
            Self::Text(value) => value.map(|value| ValueRef::Text(value.as_bytes())),
            Self::Bytes(value) => value.map(ValueRef::Blob),
        };
        Ok(ToSqlOutput::Borrowed(value.unwrap_or(ValueRef::Null)))
    }
}

/// Gives a statement of SQLite's what it takes.
pub fn bind(statement: &mut rusqlite::Statement<'_>, params: impl Params) -> Result<()> {
    let mut count = 0_usize;
    params.each(&mut |given| {
        count = count.saturating_add(1);
        Ok(statement.raw_bind_parameter(count, given)?)
    })?;
    match count == statement.parameter_count() {
        true => Ok(()),
        false => Err(Error::Misused("a statement was given too few parameters")),
    }
}

/// A text as Postgres takes it: its texts have no zero in them, which a hostile one may.
pub fn storable(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}").into(),
        false => text.into(),
    }
}

/// The same for Postgres.
pub fn arguments(params: impl Params) -> Result<PgArguments> {
    use sqlx::Arguments as _;
    let mut arguments = PgArguments::default();
    params.each(&mut |given| {
        let added = match given {
            Given::Integer(value) => arguments.add(value),
            Given::Boolean(value) => arguments.add(value),
            Given::Text(value) => arguments.add(value.map(storable)),
            Given::Bytes(value) => arguments.add(value),
        };
        added.map_err(|_| Error::Misused("a parameter is too large"))
    })?;
    Ok(arguments)
}
