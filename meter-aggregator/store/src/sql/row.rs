//! Rows and their columns.

use sqlx::{Row as _, ValueRef as _, postgres::PgRow};

use super::{Error, Result};

/// One row of what was asked for.
pub enum Row<'r> {
    /// SQLite's.
    Sqlite(&'r rusqlite::Row<'r>),
    /// Postgres', in its binary form.
    Postgres(&'r PgRow),
}

/// A place in a row: a number from 0, or a name.
pub trait Column {
    /// Its number.
    fn number(&self, row: &Row<'_>) -> Result<usize>;
}

impl Column for usize {
    fn number(&self, _: &Row<'_>) -> Result<usize> {
        Ok(*self)
    }
}

impl Column for &str {
    fn number(&self, row: &Row<'_>) -> Result<usize> {
        use sqlx::Column as _;
        Ok(match row {
            Row::Sqlite(row) => row.as_ref().column_index(self)?,
            Row::Postgres(row) => row.try_column(*self)?.ordinal(),
        })
    }
}

/// What a column can be read as.
pub trait Value: Sized {
    /// Reads it.
    fn read(row: &Row<'_>, column: usize) -> Result<Self>;
}

fn unreadable(column: usize, what: &str) -> Error {
    let what = what.to_owned();
    Error::Unreadable { column, what }
}

/// A number of Postgres', of whichever width.
fn number(bytes: &[u8]) -> Option<i64> {
    Some(match bytes.len() {
        1 => i64::from(*bytes.first()?),
        2 => i16::from_be_bytes(bytes.try_into().ok()?).into(),
        4 => i32::from_be_bytes(bytes.try_into().ok()?).into(),
        8 => i64::from_be_bytes(bytes.try_into().ok()?),
        _ => return None,
    })
}

impl<'r> Row<'r> {
    /// A column's value.
    pub fn get<C: Column, T: Value>(&self, column: C) -> Result<T> {
        T::read(self, column.number(self)?)
    }

    /// A text, where it stands.
    pub fn text(&self, column: usize) -> Result<&'r str> {
        match self {
            Self::Sqlite(row) => row
                .get_ref(column)?
                .as_str()
                .map_err(|_| unreadable(column, "no text")),
            Self::Postgres(_) => {
                std::str::from_utf8(self.raw(column)?.ok_or_else(|| null(column))?)
                    .map_err(|_| unreadable(column, "no text"))
            }
        }
    }

    /// Bytes, where they stand.
    pub fn blob(&self, column: usize) -> Result<&'r [u8]> {
        match self {
            Self::Sqlite(row) => row
                .get_ref(column)?
                .as_blob()
                .map_err(|_| unreadable(column, "no bytes")),
            Self::Postgres(_) => self.raw(column)?.ok_or_else(|| null(column)),
        }
    }

    fn is_null(&self, column: usize) -> Result<bool> {
        Ok(match self {
            Self::Sqlite(row) => row.get_ref(column)? == rusqlite::types::ValueRef::Null,
            Self::Postgres(row) => row.try_get_raw(column)?.is_null(),
        })
    }

    /// Postgres' bytes; SQLite has none.
    fn raw(&self, column: usize) -> Result<Option<&'r [u8]>> {
        let Self::Postgres(row) = self else {
            return Ok(None);
        };
        let raw = row.try_get_raw(column)?;
        if raw.is_null() {
            return Ok(None);
        }
        let bytes = raw.as_bytes();
        Ok(Some(bytes.map_err(|_| unreadable(column, "nothing"))?))
    }
}

fn null(column: usize) -> Error {
    unreadable(column, "nothing")
}

impl Value for i64 {
    fn read(row: &Row<'_>, column: usize) -> Result<Self> {
        match row {
            Row::Sqlite(row) => Ok(row.get(column)?),
            Row::Postgres(_) => row
                .raw(column)?
                .and_then(number)
                .ok_or_else(|| unreadable(column, "no number")),
        }
    }
}

impl Value for bool {
    fn read(row: &Row<'_>, column: usize) -> Result<Self> {
        Ok(row.get::<_, i64>(column)? != 0)
    }
}

impl Value for String {
    fn read(row: &Row<'_>, column: usize) -> Result<Self> {
        row.text(column).map(str::to_owned)
    }
}

impl Value for Vec<u8> {
    fn read(row: &Row<'_>, column: usize) -> Result<Self> {
        row.blob(column).map(<[u8]>::to_vec)
    }
}

impl<const N: usize> Value for [u8; N] {
    fn read(row: &Row<'_>, column: usize) -> Result<Self> {
        row.blob(column)?
            .try_into()
            .map_err(|_| unreadable(column, "bytes of another length"))
    }
}

impl<T: Value> Value for Option<T> {
    fn read(row: &Row<'_>, column: usize) -> Result<Self> {
        match row.is_null(column)? {
            true => Ok(None),
            false => T::read(row, column).map(Some),
        }
    }
}

macro_rules! narrow {
    ($($type:ty),*) => {
        $(impl Value for $type {
            fn read(row: &Row<'_>, column: usize) -> Result<Self> {
                let number: i64 = row.get(column)?;
                Self::try_from(number).map_err(|_| unreadable(column, &number.to_string()))
            }
        })*
    };
}
narrow!(i32, u32, i16);
