//! Compiled pointers, asked one level of containers at a time.

use super::PlacesError;

/// The most places: each is one bit of a set.
const PLACES_MAX: usize = 32;

/// The most steps of a place: so many levels of containers are looked at by name.
pub(super) const STEPS_MAX: usize = 8;

/// Where the values are that are looked for: pointers as of RFC 6901.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    count: usize,
    levels: [Level; STEPS_MAX],
    /// Places by how many steps they have.
    by_steps: [u32; STEPS_MAX + 1],
    name_max_bytes: usize,
}

/// The steps at one level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Level {
    /// The lengths of their names, to tell most others apart at once.
    lengths: Lengths,
    steps: Vec<Step>,
}

/// One name, and the places that have it at this level.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    name: Vec<u8>,
    /// The same name as the position in an array.
    index: Option<u32>,
    places: u32,
}

/// A set of lengths; those over 63 are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lengths(u64);

impl Lengths {
    fn bit(length: usize) -> u64 {
        1_u64.wrapping_shl(u32::try_from(length.min(63)).unwrap_or(63))
    }

    pub(super) fn add(&mut self, length: usize) {
        self.0 |= Self::bit(length);
    }

    pub(super) fn may_have(self, length: usize) -> bool {
        self.0 & Self::bit(length) != 0
    }
}

impl Places {
    /// Up to 32 places of up to 8 steps each, such as `/response/usage` or
    /// `/messages/0/role`. A step that is a number without leading zeros is also
    /// the position in an array.
    ///
    /// # Errors
    /// [`PlacesError`]
    pub fn new<S: AsRef<str>>(pointers: &[S]) -> Result<Self, PlacesError> {
        if pointers.len() > PLACES_MAX {
            return Err(PlacesError("must be at most 32 places"));
        }
        let mut places = Self {
            count: pointers.len(),
            ..Self::default()
        };
        for (place, pointer) in (0..).zip(pointers) {
            places.add(1_u32.wrapping_shl(place), pointer.as_ref())?;
        }
        Ok(places)
    }

    fn add(&mut self, place: u32, pointer: &str) -> Result<(), PlacesError> {
        let Some(steps) = pointer.strip_prefix('/') else {
            return Err(PlacesError("must begin with /"));
        };
        let mut count = 0_usize;
        for step in steps.split('/') {
            let level = self.levels.get_mut(count);
            let level = level.ok_or(PlacesError("must have at most 8 steps"))?;
            let name = decode(step)?.into_bytes();
            self.name_max_bytes = self.name_max_bytes.max(name.len());
            level.add(name, place);
            count = count.saturating_add(1);
        }
        if let Some(set) = self.by_steps.get_mut(count) {
            *set |= place;
        }
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The set of all.
    pub(super) fn all(&self) -> u32 {
        self.by_steps.iter().fold(0, |all, set| all | set)
    }

    /// Those that have so many steps.
    pub(super) fn with_steps(&self, count: usize) -> u32 {
        self.by_steps.get(count).copied().unwrap_or(0)
    }

    /// Those whose step at this level has this name.
    pub(super) fn named(&self, level: usize, name: &[u8]) -> u32 {
        match self.levels.get(level) {
            Some(level) if level.lengths.may_have(name.len()) => {
                let mut steps = level.steps.iter();
                steps.find(|s| s.name == name).map_or(0, |s| s.places)
            }
            _ => 0,
        }
    }

    /// Those whose step at this level is this position in an array.
    pub(super) fn at_index(&self, level: usize, index: u32) -> u32 {
        let steps = self.levels.get(level).map(|l| l.steps.as_slice());
        let mut steps = steps.unwrap_or_default().iter();
        steps
            .find(|s| s.index == Some(index))
            .map_or(0, |s| s.places)
    }

    /// The length of the longest name.
    pub(super) fn name_max_bytes(&self) -> usize {
        self.name_max_bytes
    }
}

impl Level {
    fn add(&mut self, name: Vec<u8>, place: u32) {
        if let Some(known) = self.steps.iter_mut().find(|s| s.name == name) {
            known.places |= place;
            return;
        }
        self.lengths.add(name.len());
        self.steps.push(Step {
            index: index(&name),
            name,
            places: place,
        });
    }
}

/// RFC 6901, section 4: no leading zeros.
fn index(name: &[u8]) -> Option<u32> {
    let digits = name.iter().all(u8::is_ascii_digit);
    let plain = digits && (name == b"0" || name.first() != Some(&b'0'));
    std::str::from_utf8(name)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

/// RFC 6901, section 3: `~1` is a slash, `~0` a tilde.
fn decode(step: &str) -> Result<String, PlacesError> {
    let mut parts = step.split('~');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = match part.as_bytes().first() {
            Some(b'0') => ('~', part.get(1..)),
            Some(b'1') => ('/', part.get(1..)),
            _ => return Err(PlacesError("must have 0 or 1 after each ~")),
        };
        name.push(sign);
        name.push_str(rest.unwrap_or_default());
    }
    Ok(name)
}
