//! Usage that was never served, as gateways and routers tell of it, and what it comes to.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use weir_wire::{
    context,
    ids::RequestId,
    keys::Keyring,
    proto::{
        context::TenantContext,
        usage::{Kind, ModelUsage, Outcome, UsageEvent, UsageSource, Witness},
    },
};

use crate::now_s;

/// The meters that it is billed on.
pub const METERS: [&str; 3] = ["api_calls", "input_tokens", "output_tokens"];

/// What the aggregators verify tenants' contexts with.
pub const CONTEXT_KEYS: &str = "k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// By tenant, meter and hour since the Unix epoch.
pub type Truth = BTreeMap<(String, &'static str, i64), i64>;

/// xorshift: the same in each run with the same seed, in whatever order threads meet.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Of that seed, for the part of a test with that number.
    #[must_use]
    pub fn new(seed: u64, part: u64) -> Self {
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(part.wrapping_mul(2) | 1);
        let mut random = Self(mixed | 1);
        for _ in 0..16 {
            random.below(2);
        }
        random
    }

    /// One of `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    /// One of them.
    ///
    /// # Panics
    /// Where there is none.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let n = self.below(u64::try_from(all.len()).expect("few"));
        &all[usize::try_from(n).expect("few")]
    }
}

/// Which witness tells: the place of its token among [`TOKENS`](crate::books::TOKENS).
pub type Teller = usize;

/// Makes requests up, and knows what they come to.
#[derive(Debug)]
pub struct Maker {
    random: Random,
    keys: Keyring,
    tenants: Vec<String>,
    /// How many hours back requests go, this one included.
    hours: u64,
    /// The name of its run as each teller, and the number of the next event.
    runs: [(String, u64); 2],
    /// What was made.
    pub truth: Truth,
}

/// How many events were made, of all makers.
pub static MADE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

impl Maker {
    /// That of the producer with that number.
    ///
    /// # Panics
    /// Never: the keys are good.
    #[must_use]
    pub fn new(seed: u64, number: u64, tenants: &[&str], hours: u64) -> Self {
        Self {
            random: Random::new(seed, number),
            keys: Keyring::parse(CONTEXT_KEYS).expect("keys"),
            tenants: tenants.iter().map(|t| (*t).to_owned()).collect(),
            hours,
            runs: ["gateway", "router"].map(|who| (format!("{who}-{number}"), 1)),
            truth: Truth::new(),
        }
    }

    /// Its random numbers, for whoever sends what it makes.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// A request's events in the order in which they are told, and by whom: by both
    /// witnesses in either order, by one where the other's word was lost, some twice. All
    /// but the last hours' are planned meanwhile.
    ///
    /// # Panics
    /// Where the machine has no randomness.
    pub fn request(&mut self) -> Vec<(Teller, UsageEvent)> {
        let tenant = self.random.of(&self.tenants).clone();
        let hours_ago = i64::try_from(self.random.below(self.hours)).expect("few");
        let at_ms = u64::try_from((now_s() - hours_ago * 3_600) * 1_000).expect("after 1970");
        let mut bytes = [0; 10];
        getrandom::fill(&mut bytes).expect("randomness");
        let id = RequestId::mint(at_ms, bytes);
        let (input, output) = (1 + self.random.below(900), 1 + self.random.below(300));
        let guess = usage(UsageSource::Estimated, input / 2, output * 2);
        let told = usage(UsageSource::Reported, input, output);
        let (told_by, billed) = match self.random.below(10) {
            // The router's word was lost.
            0 => (vec![(0, guess)], [1, input / 2, output * 2]),
            // The gateway's was.
            1 => (vec![(1, told)], [1, input, output]),
            _ => (vec![(0, guess), (1, told)], [1, input, output]),
        };
        let mut events: Vec<_> = told_by
            .into_iter()
            .map(|(teller, usage)| (teller, self.event(teller, id, &tenant, usage)))
            .collect();
        if self.random.below(2) == 0 {
            events.reverse();
        }
        if self.random.below(4) == 0 {
            events.extend(events.clone());
        }
        for (meter, quantity) in METERS.into_iter().zip(billed) {
            let hour = id.time_ms().div_euclid(3_600_000);
            *self.truth.entry((tenant.clone(), meter, hour)).or_default() +=
                i64::try_from(quantity).expect("few");
        }
        MADE.fetch_add(events.len(), Relaxed);
        events
    }

    fn event(
        &mut self,
        teller: Teller,
        id: RequestId,
        tenant: &str,
        usage: ModelUsage,
    ) -> UsageEvent {
        let (run, next) = &mut self.runs[teller];
        let sequence = *next;
        *next += 1;
        let signed = TenantContext {
            tenant: tenant.into(),
            plan: "starter".into(),
            request_id: id.to_string(),
            issued_at_ms: 0,
        };
        UsageEvent {
            kind: Kind::Request.into(),
            event_id: format!("{teller}-{id}"),
            request_id: id.to_string(),
            witness: [Witness::Gateway, Witness::Router][teller].into(),
            tenant: tenant.into(),
            request_class: "chat".into(),
            outcome: Outcome::Completed.into(),
            status: 200,
            usage: vec![usage],
            tenant_context: context::sign(&signed, &self.keys),
            producer_run: run.clone(),
            sequence,
            ..UsageEvent::default()
        }
    }
}

fn usage(source: UsageSource, input: u64, output: u64) -> ModelUsage {
    ModelUsage {
        model_served: "m".into(),
        provider: "p".into(),
        attempt: 1,
        input_tokens: input,
        output_tokens: output,
        source: source.into(),
        ..ModelUsage::default()
    }
}

/// Adds what others made.
pub fn add(to: &mut Truth, more: Truth) {
    for (key, quantity) in more {
        *to.entry(key).or_default() += quantity;
    }
}
