//! The scan's steps: what each byte is, where the scan stands.

use super::{
    At, Broken, COUNTS, Kind, OBJECT, Scan, length,
    number::Number,
    string::{self, Escape, Utf8},
};

impl Scan {
    pub(super) fn read(&mut self, chunk: &[u8]) -> Result<(), Broken> {
        let mut i = 0_usize;
        while let Some(&byte) = chunk.get(i) {
            i = match self.at {
                At::Text => self.text(chunk, i, false)?,
                At::NameText => self.text(chunk, i, true)?,
                At::Escape { name } => self.escape(byte, i, name)?,
                At::Hex { name, left, unit } => self.hex(byte, i, name, left, unit)?,
                At::Number(number) => self.number(chunk, i, number)?,
                At::Word(due) => self.word(chunk, i, due)?,
                _ if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') => i.wrapping_add(1),
                _ => self.structure(chunk, byte, i)?,
            };
        }
        Ok(())
    }

    pub(super) fn broken(&self, i: usize, what: &'static str) -> Broken {
        let at = self.offset.saturating_add(length(i));
        Broken { at, what }
    }

    fn structure(&mut self, chunk: &[u8], byte: u8, i: usize) -> Result<usize, Broken> {
        match (self.at, byte) {
            (At::After, b',') => {
                self.at = if self.in_object() {
                    if chunk.get(i.wrapping_add(1)) == Some(&b'"') {
                        // Mostly the name follows at once.
                        self.name.begin();
                        self.at = At::NameText;
                        return Ok(i.wrapping_add(2));
                    }
                    At::Name
                } else {
                    self.taken.next_item(self.level());
                    At::Value
                };
            }
            (At::After | At::FirstName, b'}') if self.in_object() => self.leave(chunk, i),
            (At::After | At::FirstItem, b']') if !self.in_object() => self.leave(chunk, i),
            (At::Colon, b':') => self.at = At::Value,
            (At::Name | At::FirstName, b'"') => {
                self.name.begin();
                self.at = At::NameText;
            }
            (At::Value | At::FirstItem, _) => self.begin(byte, i)?,
            _ => return Err(self.broken(i, self.due())),
        }
        Ok(i.wrapping_add(1))
    }

    /// What is due where the scan stands.
    fn due(&self) -> &'static str {
        match self.at {
            At::Colon => "expected a colon",
            At::Name => "expected a name",
            At::FirstName => "expected a name or }",
            At::After if self.in_object() => "expected a comma or }",
            At::After => "expected a comma or ]",
            At::End => "expected nothing after the value",
            At::FirstItem => "expected a value or ]",
            _ => "expected a value",
        }
    }

    /// The position of the innermost container.
    fn level(&self) -> usize {
        self.depth.wrapping_sub(1)
    }

    fn container(&self) -> u8 {
        self.containers.get(self.level()).copied().unwrap_or(0)
    }

    fn in_object(&self) -> bool {
        self.container() & OBJECT != 0
    }

    /// A value begins with this byte.
    fn begin(&mut self, byte: u8, i: usize) -> Result<(), Broken> {
        let (kind, at) = match byte {
            b'"' => (Kind::String, At::Text),
            b'{' => (Kind::Object, At::FirstName),
            b'[' => (Kind::Array, At::FirstItem),
            b't' => (Kind::Bool, At::Word(b"rue")),
            b'f' => (Kind::Bool, At::Word(b"alse")),
            b'n' => (Kind::Null, At::Word(b"ull")),
            b'N' if self.is_lenient => (Kind::Number, At::Word(b"aN")),
            b'I' if self.is_lenient => (Kind::Number, At::Word(b"nfinity")),
            _ => match Number::begin(byte) {
                Some(number) => (Kind::Number, At::Number(number)),
                None => return Err(self.broken(i, self.due())),
            },
        };
        let start = self.offset.saturating_add(length(i));
        if self.depth == 0 {
            self.root = Some((kind, start));
        } else if !self.in_object() {
            self.counts = self.container() & COUNTS != 0;
            self.taken.item(self.level());
        }
        self.taken.begin(self.depth, kind, start);
        self.at = at;
        if matches!(kind, Kind::Object | Kind::Array) {
            self.enter(kind, i)?;
        }
        Ok(())
    }

    fn enter(&mut self, kind: Kind, i: usize) -> Result<(), Broken> {
        self.taken.enter(self.depth);
        let counts = if self.counts { COUNTS } else { 0 };
        let object = if kind == Kind::Object { OBJECT } else { 0 };
        match self.containers.get_mut(self.depth) {
            Some(container) => *container = counts | object,
            None => return Err(self.broken(i, "nested too deep")),
        }
        self.depth = self.depth.wrapping_add(1);
        Ok(())
    }

    /// A container closes.
    fn leave(&mut self, chunk: &[u8], i: usize) {
        self.depth = self.level();
        self.end_value(i.wrapping_add(1), chunk);
    }

    /// A value ended before the `end`th byte of the chunk.
    pub(super) fn end_value(&mut self, end: usize, chunk: &[u8]) {
        self.taken.end(self.depth, end, chunk, self.offset);
        self.at = if self.depth == 0 { At::End } else { At::After };
    }

    fn end_name(&mut self, piece: &[u8]) {
        self.at = At::Colon;
        if self.name.is_used() {
            self.name.push(piece);
        }
        let name = if self.name.is_used() {
            self.name.get()
        } else {
            Some(piece)
        };
        self.counts = self.measure.of(name);
        let level = self.depth.wrapping_sub(1);
        self.taken.name(level, name);
    }

    /// Bytes of a string, as far as it stands in this chunk.
    fn text(&mut self, chunk: &[u8], from: usize, is_name: bool) -> Result<usize, Broken> {
        let mut i = from;
        if self.cut.is_open() {
            i = self.rest_of_character(chunk, i)?;
        }
        let checked = i;
        // Of a name, what comes after its last escape.
        let mut piece = from;
        let (mut is_high, mut escapes) = (false, 0_usize);
        let ended_by = loop {
            let (run, high) = string::run(chunk.get(i..).unwrap_or_default());
            is_high |= high;
            i = i.wrapping_add(run);
            let by = chunk.get(i).copied();
            if by != Some(b'\\') {
                if self.is_lenient && by.is_some_and(|byte| byte < 0x20) {
                    i = i.wrapping_add(1);
                    continue;
                }
                break by;
            }
            if is_name {
                self.name.push(chunk.get(piece..i).unwrap_or_default());
            }
            let after = chunk.get(i.wrapping_add(1)..).unwrap_or_default();
            let length = match string::escape(after) {
                Escape::Other => break by,
                Escape::Byte(byte) if is_name => {
                    self.name.push(&[byte]);
                    2
                }
                Escape::Byte(_) => 2,
                Escape::Unit(unit) if is_name => {
                    self.name.push_unit(unit);
                    6
                }
                Escape::Unit(_) => 6,
            };
            escapes = escapes.wrapping_add(1);
            i = i.wrapping_add(length);
            piece = i;
        };
        if is_high && !self.is_lenient {
            let plain = chunk.get(checked..i).unwrap_or_default();
            if let Utf8::Bad(at) = self.cut.check(plain, ended_by.is_none()) {
                return Err(self.broken(checked.wrapping_add(at), "no UTF-8"));
            }
        }
        if self.counts && !is_name {
            let text = i.wrapping_sub(from).wrapping_sub(escapes);
            self.text_bytes = self.text_bytes.wrapping_add(length(text));
        }
        let rest = chunk.get(piece..i).unwrap_or_default();
        match ended_by {
            Some(b'"') if is_name => {
                self.end_name(rest);
                if chunk.get(i.wrapping_add(1)) == Some(&b':') {
                    // Mostly the colon follows at once.
                    self.at = At::Value;
                    return Ok(i.wrapping_add(2));
                }
            }
            Some(b'"') => self.end_value(i.wrapping_add(1), chunk),
            Some(b'\\') => self.at = At::Escape { name: is_name },
            Some(_) => return Err(self.broken(i, "control character in a string")),
            None => {
                if is_name {
                    self.name.push(rest);
                }
                return Ok(i);
            }
        }
        Ok(i.wrapping_add(1))
    }

    /// A character that the chunk before ended in goes on.
    fn rest_of_character(&mut self, chunk: &[u8], i: usize) -> Result<usize, Broken> {
        let before = self.cut.length();
        match self.cut.go_on(chunk.get(i..).unwrap_or_default()) {
            Some(taken) => Ok(i.wrapping_add(taken)),
            None => {
                let at = self.offset.saturating_sub(length(before));
                Err(Broken {
                    at,
                    what: "no UTF-8",
                })
            }
        }
    }

    fn escape(&mut self, byte: u8, i: usize, name: bool) -> Result<usize, Broken> {
        if byte == b'u' {
            let (left, unit) = (4, 0);
            self.at = At::Hex { name, left, unit };
        } else {
            let Some(plain) = string::escaped(byte) else {
                return Err(self.broken(i, "unknown escape"));
            };
            self.at = if name { At::NameText } else { At::Text };
            if name {
                self.name.push(&[plain]);
            }
        }
        self.count_one(name);
        Ok(i.wrapping_add(1))
    }

    fn hex(
        &mut self,
        byte: u8,
        i: usize,
        name: bool,
        left: u8,
        unit: u16,
    ) -> Result<usize, Broken> {
        let Some(digit) = string::hex(byte) else {
            return Err(self.broken(i, "expected four hexadecimal digits"));
        };
        let unit = unit.wrapping_shl(4) | digit;
        self.count_one(name);
        self.at = match left {
            0..=1 if name => {
                self.name.push_unit(unit);
                At::NameText
            }
            0..=1 => At::Text,
            _ => At::Hex {
                name,
                left: left.wrapping_sub(1),
                unit,
            },
        };
        Ok(i.wrapping_add(1))
    }

    fn count_one(&mut self, is_name: bool) {
        if self.counts && !is_name {
            self.text_bytes = self.text_bytes.wrapping_add(1);
        }
    }

    fn number(&mut self, chunk: &[u8], from: usize, number: Number) -> Result<usize, Broken> {
        let mut number = number;
        let mut i = from;
        while let Some(&byte) = chunk.get(i) {
            let Some(next) = number.next(byte) else {
                if self.is_lenient && number == Number::Minus && byte == b'I' {
                    self.at = At::Word(b"nfinity");
                    return Ok(i.wrapping_add(1));
                }
                if !number.is_whole() {
                    return Err(self.broken(i, "expected a digit"));
                }
                self.end_value(i, chunk);
                return Ok(i);
            };
            number = next;
            i = i.wrapping_add(1);
        }
        self.at = At::Number(number);
        Ok(i)
    }

    fn word(&mut self, chunk: &[u8], from: usize, due: &'static [u8]) -> Result<usize, Broken> {
        let mut i = from;
        let mut due = due;
        while let (Some(&byte), Some((&wanted, rest))) = (chunk.get(i), due.split_first()) {
            if byte != wanted {
                return Err(self.broken(i, "expected true, false or null"));
            }
            due = rest;
            i = i.wrapping_add(1);
        }
        if due.is_empty() {
            self.end_value(i, chunk);
        } else {
            self.at = At::Word(due);
        }
        Ok(i)
    }
}
