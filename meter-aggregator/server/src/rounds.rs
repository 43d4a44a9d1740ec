//! What the aggregator does again and again, of what it holds.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use weir_meter_core::{
    lease::{SHARDS, Scope},
    ledger::closing,
};
use weir_meter_store::ledger::LedgerError;
use weir_process::now_ms;

use crate::{
    api::Parts,
    books::{BookError, Books},
    fleet::Held,
    reconciler::Reconciler,
    sender::{SendError, Sender},
};

/// How often hours are planned and intents are sent.
const PLAN_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked for requests that waited long enough.
const WAITING_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked for what is too old.
const KEEP_EVERY: Duration = Duration::from_secs(3_600);

/// How long others have the ledger between two steps of letting go.
const KEEP_PAUSE: Duration = Duration::from_millis(50);

/// How often Stripe's sums are asked about what is due.
const RECONCILE_EVERY: Duration = Duration::from_secs(30);

/// How often the embedded stream is looked at that nobody said anything of.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a shared stream is waited on at a time.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked how much waits in a shared stream.
const WAITING_LOOK: Duration = Duration::from_secs(1);

/// How often it is looked whether an operator closes the books.
const CLOSE_LOOK: Duration = Duration::from_millis(200);

/// After it failed: Stripe may refuse the key.
const CLOSE_PAUSE: Duration = Duration::from_secs(2);

/// How often it is looked whether billing keeps up.
const WATCH_EVERY: Duration = Duration::from_secs(30);

/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Shards that are planned and sent of at a time: a slow answer of Stripe's holds up no
/// other shard.
const SHARDS_AT_ONCE: usize = 4;

/// Whether it is to stop.
pub type Stopped = watch::Receiver<bool>;

fn told(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

/// A lease went to another replica, which is no failure.
fn is_fenced(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Fenced { .. })
}

/// Waits; says whether to go on.
async fn pause(stopped: &mut Stopped, pause: Duration) -> bool {
    tokio::select! {
        _ = stopped.wait_for(|s| *s) => false,
        () = tokio::time::sleep(pause) => true,
    }
}

/// Books the embedded stream whenever there is something to book.
pub async fn book(books: Books, mut stopped: Stopped) {
    let mut tail = books.intake().tail();
    let mut held = books.held();
    loop {
        let mut next = LOOK_EVERY;
        if let Err(error) = books.book_all().await {
            tracing::error!(error = told(error), "booking failed; it is tried again");
            next = PAUSE;
        }
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            changed = tail.changed(), if next != PAUSE => if changed.is_err() { return },
            changed = held.changed() => if changed.is_err() { held = books.held() },
            () = tokio::time::sleep(next) => {}
        }
    }
}

/// Books a lane of a shared stream, as long as it is held.
pub async fn book_lane(books: Books, lane: usize, mut stopped: Stopped) {
    let mut held = books.held();
    loop {
        held.mark_unchanged();
        let next = match books.step(lane, PATIENCE).await {
            Ok(count) if count > 0 => Duration::ZERO,
            // It waited, or the lane is another's.
            Ok(_) => Duration::from_millis(10),
            Err(BookError::Ledger(error)) if is_fenced(&error) => {
                tracing::info!(lane, "another replica has the shard now");
                PAUSE
            }
            Err(error) => {
                tracing::error!(
                    lane,
                    error = told(error),
                    "booking failed; it is tried again"
                );
                PAUSE
            }
        };
        if *stopped.borrow() {
            return;
        }
        if next.is_zero() {
            continue;
        }
        let is_idle = next < PAUSE && !books.holds(lane);
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            changed = held.changed(), if is_idle => if changed.is_err() { return },
            () = tokio::time::sleep(next), if !is_idle => {}
        }
    }
}

/// Looks how much waits in a shared stream.
pub async fn look(books: Books, mut stopped: Stopped) {
    let mut is_failing = false;
    loop {
        match books.intake().look().await {
            Ok(()) => is_failing = false,
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::error!(error = told(error), "it is not known how much waits");
            }
            Err(_) => {}
        }
        if !pause(&mut stopped, WAITING_LOOK).await {
            return;
        }
    }
}

/// Looks now and then whether billing keeps up, and says where it does not.
pub async fn watch(parts: Arc<Parts>, mut stopped: Stopped) {
    let mut is_behind = false;
    loop {
        let reasons = match parts.books.metrics().behind(&parts).await {
            Ok(behind) => behind.iter().map(ToString::to_string).collect(),
            Err(error) => vec![format!("it can't be looked at: {error:#}")],
        };
        match (is_behind, reasons.is_empty()) {
            (false, false) => {
                tracing::error!(reasons = reasons.join("; "), "billing falls behind");
            }
            (true, true) => tracing::info!("billing keeps up again"),
            _ => {}
        }
        is_behind = !reasons.is_empty();
        if !pause(&mut stopped, WATCH_EVERY).await {
            return;
        }
    }
}

/// Books what waited long enough for its second witness, and says of events that they are
/// missing.
pub async fn wait(books: Books, mut stopped: Stopped) {
    loop {
        for scope in books.scopes() {
            match books.book_waiting(scope, false).await {
                Ok(()) => {}
                Err(error) if is_fenced(&error) => {}
                Err(error) => {
                    tracing::error!(error = told(error), "booking failed; it is tried again");
                }
            }
        }
        if books.is_house()
            && let Err(error) = tell_gaps(&books).await
        {
            tracing::error!(error = told(error), "gaps can't be looked up");
        }
        if !pause(&mut stopped, WAITING_EVERY).await {
            return;
        }
    }
}

/// Says once of events that they are missing.
async fn tell_gaps(books: &Books) -> Result<(), LedgerError> {
    let settled_ms = books.intake().settled_ms(now_ms());
    let gaps = books
        .with(move |ledger| ledger.tell_gaps(settled_ms))
        .await?;
    for gap in gaps {
        tracing::error!(
            witness = gap.witness,
            run = gap.run,
            first = gap.first,
            last = gap.last,
            "usage events are missing"
        );
    }
    Ok(())
}

/// Lets what is too old go, in small steps between which others book.
pub async fn keep(books: Books, mut stopped: Stopped) {
    loop {
        let next = match books.is_house() {
            false => PAUSE,
            true => match books.drop_old().await {
                Ok(true) => KEEP_PAUSE,
                Ok(false) => KEEP_EVERY,
                Err(error) => {
                    tracing::error!(error = told(error), "what is too old can't be let go");
                    KEEP_EVERY
                }
            },
        };
        if !pause(&mut stopped, next).await {
            return;
        }
    }
}

/// Asks Stripe's sums from time to time.
pub async fn reconcile(reconciler: Reconciler, books: Books, mut stopped: Stopped) {
    loop {
        for scope in books.scopes() {
            match reconciler.run(scope).await {
                Ok(_) => {}
                Err(SendError::Ledger(error)) if is_fenced(&error) => {}
                Err(error) => tracing::error!(error = told(error), "reconciling failed"),
            }
        }
        if !pause(&mut stopped, RECONCILE_EVERY).await {
            return;
        }
    }
}

/// Plans and sends from time to time.
pub async fn bill(sender: Arc<Sender>, books: Books, mut stopped: Stopped) {
    loop {
        let scopes = books.scopes();
        books.metrics().problems().held(&scopes);
        let mut scopes = scopes.into_iter();
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < SHARDS_AT_ONCE
                && let Some(scope) = scopes.next()
            {
                under_way.spawn(bill_scope(Arc::clone(&sender), scope));
            }
            if under_way.join_next().await.is_none() {
                break;
            }
        }
        // An operator may have decided what Stripe refused.
        let is_stripes = books.metrics().problems().is_stripes();
        if is_stripes && matches!(books.look(|l| l.open_intents()).await, Ok(0)) {
            books.metrics().problems().nothing_is_left();
        }
        if !pause(&mut stopped, PLAN_EVERY).await {
            return;
        }
    }
}

async fn bill_scope(sender: Arc<Sender>, scope: Scope) {
    match sender.plan(scope, false).await {
        Ok(_) => {}
        Err(error) if is_fenced(&error) => return,
        Err(error) => tracing::error!(error = told(error), "planning failed"),
    }
    match sender.send_due(scope).await {
        Ok(()) => {}
        Err(SendError::Ledger(error)) if is_fenced(&error) => {}
        Err(error) => tracing::error!(error = told(error), "sending failed"),
    }
}

/// Sees to what changes hands: the calls to Stripe are shared as the shards are, and what
/// was under way when a shard's last holder ended is tried again at once.
pub async fn take_over(sender: Arc<Sender>, books: Books, mut stopped: Stopped) {
    let mut held = books.held();
    let mut before = Held::nothing();
    loop {
        let now = held.borrow_and_update().clone();
        sender.stripe.share(now.share(), SHARDS);
        let old = before.scopes();
        for scope in now.scopes().into_iter().filter(|s| !old.contains(s)) {
            let hurried = books.with(move |ledger| ledger.hurry(scope)).await;
            if let Err(error) = hurried {
                tracing::warn!(
                    error = told(error),
                    "what was under way is tried again later"
                );
            }
        }
        before = now;
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            changed = held.changed() => if changed.is_err() { return },
        }
    }
}

/// Closes the books of what is held when an operator asks for it, of whichever replica.
pub async fn close(sender: Arc<Sender>, books: Books, mut stopped: Stopped) {
    // The last word, and as what it was followed.
    let mut followed: (i64, Vec<Scope>) = (0, Vec::new());
    loop {
        let mut next = CLOSE_LOOK;
        let scopes = books.scopes();
        match books.look(|ledger| ledger.progress(closing::CLOSE)).await {
            Ok(number) if followed != (number, scopes.clone()) => {
                match follow(&sender, &books, &scopes).await {
                    Ok(()) => followed = (number, scopes),
                    // Its leases are given back.
                    Err(_) if *stopped.borrow() => return,
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::warn!(error, "closing the books is tried again");
                        next = CLOSE_PAUSE;
                    }
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(
                    error = told(error),
                    "it is not known whether to close the books"
                );
            }
        }
        if !pause(&mut stopped, next).await {
            return;
        }
    }
}

/// Closes the books of those shards that have yet to follow an operator's word.
async fn follow(sender: &Arc<Sender>, books: &Books, scopes: &[Scope]) -> anyhow::Result<()> {
    for scope in scopes.iter().copied() {
        let Some(shard) = scope.shard() else {
            continue;
        };
        let wanted = books
            .with(move |ledger| ledger.transaction(scope, |c| closing::wanted(c, shard)))
            .await?;
        let Some(number) = wanted else {
            continue;
        };
        close_scope(sender, books, scope).await?;
        books
            .with(move |ledger| ledger.transaction(scope, |c| closing::done(c, shard, number)))
            .await?;
    }
    Ok(())
}

/// Books, plans and sends all there is of a scope once.
///
/// # Errors
/// Where it is not all with Stripe for a reason that another try may mend.
pub async fn close_scope(sender: &Arc<Sender>, books: &Books, scope: Scope) -> anyhow::Result<()> {
    books.close(scope).await?;
    sender.plan(scope, true).await?;
    books.with(move |ledger| ledger.hurry(scope)).await?;
    sender.send_due(scope).await?;
    Ok(())
}
