//! What tenants used, what witnesses tell of it and when, and what that comes to:
//! counted here by other means than the ledger's.

use std::collections::{BTreeMap, BTreeSet};

use weir_wire::{
    ids::{RequestId, TenantId},
    proto::usage::{Kind, ModelUsage, Outcome, UsageEvent, UsageSource, Witness},
};

use super::{HOUR_MS, Random, START_MS};
use crate::{
    hour::Hour,
    ledger::{BucketKey, RequestKey, memory::bucket_of},
    meter::{Dimension, Meter, Tier},
    tariff::Tariff,
};

/// What one event is believed, and bills.
#[derive(Debug, Clone)]
struct Claim {
    key: RequestKey,
    witness: Witness,
    rank: u8,
    bills: Vec<(Meter, i64)>,
}

/// One event, and when it comes to the stream.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub at_ms: i64,
    claim: usize,
}

/// All that is told in a run.
#[derive(Debug)]
pub struct Traffic {
    pub tariff: Tariff,
    tiered: bool,
    claims: Vec<(Claim, UsageEvent)>,
    /// What is to come, the last first.
    pub deliveries: Vec<Delivery>,
    /// The durable log: numbers, and which claim.
    pub stream: Vec<(i64, usize)>,
    /// Claims in the order in which they were booked, where that is not the log's: another
    /// consumer's entries may come after later ones.
    pub booked: Option<Vec<usize>>,
}

/// A request as it was.
struct Asked {
    key: RequestKey,
    outcome: Outcome,
    model: &'static str,
}

impl Traffic {
    pub fn new(random: &mut Random) -> Self {
        let tiered = random.chance(300);
        let mut names = vec![
            "api_calls",
            "input_tokens",
            "output_tokens",
            "storage_mb_hours",
        ];
        if tiered {
            names.extend(["input_tokens.premium", "cached_input_tokens"]);
        }
        let meters: Vec<Meter> = names.iter().map(|n| Meter::parse(n).unwrap()).collect();
        let tiers = [("big".to_owned(), Tier::new("premium").unwrap())];
        let mut traffic = Self {
            tariff: Tariff::new(meters, tiers),
            tiered,
            claims: Vec::new(),
            deliveries: Vec::new(),
            stream: Vec::new(),
            booked: None,
        };
        // Now and then all is of one hour, in amounts that are much alike.
        let is_narrow = random.chance(200);
        let (tenants, hours, tokens) = match is_narrow {
            true => (1, 1, 3),
            false => (random.within(1, 4), random.within(1, 5), 9),
        };
        for _ in 0..random.within(3, 28) {
            traffic.ask(random, tenants, hours, tokens);
        }
        traffic.deliveries.sort_by_key(|d| -d.at_ms);
        traffic
    }

    /// One request, or one measure of storage, and what is told of it.
    fn ask(&mut self, random: &mut Random, tenants: i64, hours: i64, tokens: i64) {
        let at_ms = START_MS + random.within(0, hours * HOUR_MS);
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&random.next().to_le_bytes());
        let tenant = format!("t{}", random.within(0, tenants));
        let asked = Asked {
            key: RequestKey {
                id: RequestId::mint(u64::try_from(at_ms).unwrap(), bytes),
                tenant: TenantId::new(tenant).unwrap(),
            },
            outcome: match random.within(0, 20) {
                0 => Outcome::Rejected,
                1 | 2 => Outcome::UpstreamError,
                3 | 4 => Outcome::ClientDisconnected,
                _ => Outcome::Completed,
            },
            model: random.pick(&["big", "small"]),
        };
        if random.chance(80) {
            return self.store(random, &asked, at_ms);
        }
        let tokens = random.within(1, tokens);
        for witness in [Witness::Gateway, Witness::Router] {
            if random.chance(100) {
                continue;
            }
            let source = match random.within(0, 20) {
                0 => UsageSource::None,
                1..6 => UsageSource::Estimated,
                _ => UsageSource::Reported,
            };
            // Now and then it heard otherwise than the other.
            let mut heard = tokens
                + if random.chance(80) {
                    random.within(1, 4)
                } else {
                    0
                };
            if source == UsageSource::Estimated {
                heard += random.within(0, 5);
            }
            self.tell(random, &asked, at_ms, witness, source, heard);
            if source == UsageSource::Estimated && random.chance(400) {
                self.tell(
                    random,
                    &asked,
                    at_ms,
                    witness,
                    UsageSource::Reported,
                    tokens,
                );
            }
            if random.chance(60) {
                // Not the same, and as much to be believed.
                self.tell(random, &asked, at_ms, witness, source, heard + 5);
            }
        }
    }

    fn store(&mut self, random: &mut Random, asked: &Asked, at_ms: i64) {
        let mb = random.within(1, 500);
        let event = UsageEvent {
            kind: Kind::Storage.into(),
            witness: Witness::Service.into(),
            request_id: asked.key.id.to_string(),
            tenant: asked.key.tenant.to_string(),
            storage_mb_hours: u64::try_from(mb).unwrap(),
            ..UsageEvent::default()
        };
        let claim = Claim {
            key: asked.key.clone(),
            witness: Witness::Service,
            rank: 1,
            bills: vec![(Meter::of(Dimension::StorageMbHours), mb)],
        };
        self.deliver(random, claim, event, at_ms);
    }

    fn tell(
        &mut self,
        random: &mut Random,
        asked: &Asked,
        at_ms: i64,
        witness: Witness,
        source: UsageSource,
        tokens: i64,
    ) {
        let tokens = if source == UsageSource::None {
            0
        } else {
            tokens
        };
        let count = u64::try_from(tokens).unwrap();
        let event = UsageEvent {
            kind: Kind::Request.into(),
            witness: witness.into(),
            request_id: asked.key.id.to_string(),
            tenant: asked.key.tenant.to_string(),
            request_class: "chat".into(),
            outcome: asked.outcome.into(),
            tenant_context: "signed".into(),
            usage: vec![ModelUsage {
                model_served: asked.model.into(),
                input_tokens: count,
                cached_input_tokens: count * 2,
                output_tokens: count * 3,
                source: source.into(),
                ..ModelUsage::default()
            }],
            ..UsageEvent::default()
        };
        let rank = match (source, witness) {
            (UsageSource::Reported, Witness::Router) => 5,
            (UsageSource::Reported, _) => 4,
            (UsageSource::Estimated, Witness::Router) => 3,
            (UsageSource::Estimated, _) => 2,
            _ => 1,
        };
        let claim = Claim {
            key: asked.key.clone(),
            witness,
            rank,
            bills: self.bills(asked, tokens),
        };
        self.deliver(random, claim, event, at_ms);
    }

    fn bills(&self, asked: &Asked, tokens: i64) -> Vec<(Meter, i64)> {
        let calls = match asked.outcome {
            Outcome::Rejected => return Vec::new(),
            Outcome::UpstreamError => 0,
            _ => 1,
        };
        let input = if self.tiered && asked.model == "big" {
            "input_tokens.premium"
        } else {
            "input_tokens"
        };
        let cached = if self.tiered {
            "cached_input_tokens"
        } else {
            input
        };
        [
            ("api_calls", calls),
            (input, tokens),
            (cached, tokens * 2),
            ("output_tokens", tokens * 3),
        ]
        .map(|(name, n)| (Meter::parse(name).unwrap(), n))
        .to_vec()
    }

    /// Has an event come once or more, soon or late.
    fn deliver(&mut self, random: &mut Random, claim: Claim, event: UsageEvent, at_ms: i64) {
        let number = self.claims.len();
        self.claims.push((claim, event));
        let mut at_ms = at_ms;
        loop {
            at_ms += match random.within(0, 100) {
                0..80 => random.within(0, 60_000),
                80..95 => random.within(0, HOUR_MS),
                _ => random.within(0, 30 * HOUR_MS),
            };
            self.deliveries.push(Delivery {
                at_ms,
                claim: number,
            });
            if !random.chance(150) {
                break;
            }
        }
    }

    /// Takes what has come by now to the stream.
    pub fn arrive(&mut self, random: &mut Random, now_ms: i64) {
        while self.deliveries.last().is_some_and(|d| d.at_ms <= now_ms) {
            let delivery = self.deliveries.pop().unwrap();
            // Numbers grow, and some are of what went to quarantine.
            let last = self.stream.last().map_or(0, |(seq, _)| *seq);
            let seq = last + 1 + i64::from(random.chance(100));
            self.stream.push((seq, delivery.claim));
        }
    }

    /// Events after a number.
    pub fn after(&self, seq: i64, limit: usize) -> Vec<(i64, UsageEvent)> {
        let from = self.stream.partition_point(|(s, _)| *s <= seq);
        let events = self.stream[from..].iter().take(limit);
        events
            .map(|(seq, n)| (*seq, self.claims[*n].1.clone()))
            .collect()
    }

    /// What a claim's event says, and whose it is.
    pub fn event(&self, claim: usize) -> (&TenantId, &UsageEvent) {
        let (claim, event) = &self.claims[claim];
        (&claim.key.tenant, event)
    }

    /// Whose all of it is, each as often as something is told of him.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.claims.iter().map(|(claim, _)| &claim.key.tenant)
    }

    /// Claims in the order in which they count.
    fn order(&self) -> Vec<usize> {
        let all = || self.stream.iter().map(|(_, claim)| *claim).collect();
        self.booked.clone().unwrap_or_else(all)
    }

    /// What all that came is to come to.
    pub fn truth(&self) -> BTreeMap<BucketKey, i64> {
        // Of each witness the first of its best.
        let mut heard: BTreeMap<(&RequestKey, Witness), &Claim> = BTreeMap::new();
        let order = self.order();
        for number in &order {
            let claim = &self.claims[*number].0;
            let known = heard.entry((&claim.key, claim.witness)).or_insert(claim);
            if claim.rank > known.rank {
                *known = claim;
            }
        }
        // Routers come after gateways, and win where both are as good.
        let mut best: BTreeMap<&RequestKey, &Claim> = BTreeMap::new();
        for ((key, _), claim) in heard {
            let known = best.entry(key).or_insert(claim);
            if claim.rank >= known.rank {
                *known = claim;
            }
        }
        let mut truth = BTreeMap::new();
        for (key, claim) in best {
            for (meter, n) in &claim.bills {
                *truth.entry(bucket_of(key, meter)).or_default() += n;
            }
        }
        truth.retain(|_, n| *n != 0);
        truth
    }

    /// Requests of which a witness told twice, as much to be believed and not the same.
    pub fn conflicts(&self) -> BTreeSet<RequestKey> {
        let mut heard: BTreeMap<(&RequestKey, Witness), usize> = BTreeMap::new();
        let mut found = BTreeSet::new();
        let order = self.order();
        for number in &order {
            let (claim, event) = &self.claims[*number];
            let known = heard.entry((&claim.key, claim.witness)).or_insert(*number);
            let (before, first) = &self.claims[*known];
            if claim.rank > before.rank {
                *known = *number;
            } else if claim.rank == before.rank && event != first {
                found.insert(claim.key.clone());
            }
        }
        found
    }

    /// The last hour that something was used in.
    pub fn last_hour(&self) -> Hour {
        let hours = self.claims.iter().map(|(claim, _)| claim.key.hour());
        hours.max().unwrap_or(Hour::of_ms(START_MS))
    }
}
