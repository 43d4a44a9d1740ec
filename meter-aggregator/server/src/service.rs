//! The running aggregator: ingest, booking, planning and sending.

use std::{
    fs::{File, TryLockError},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use weir_process::{StopSignal, now_ms, write_whole};

use crate::{
    admin,
    api::Parts,
    books::Books,
    config::{AccessLog, Settings},
    grpc, http,
    ledger::LedgerError,
    reconciler::Reconciler,
    sender::Sender,
    stripe::MeterError,
    tail::{LogState, Tail},
    webhook::Webhooks,
};

/// How long requests under way may take after a signal.
const GRACE: Duration = Duration::from_secs(8);

/// How long is waited for the folder.
const LOCK_MAX: Duration = Duration::from_secs(10);

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

/// The file in the data folder that says where the admin API listens.
pub const ADDRESS_FILE: &str = "address";

/// The file in the data folder that says where Stripe's webhooks are taken.
const WEBHOOK_ADDRESS_FILE: &str = "webhook-address";

/// Runs until a signal comes.
pub async fn run(mut settings: Settings, ready_file: Option<&Path>) -> anyhow::Result<()> {
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("data_dir: cannot create {}", settings.data_dir.display()))?;
    let Some(_lock) = wait_for_lock(&settings.data_dir).await? else {
        bail!(
            "data_dir: another aggregator runs on {}",
            settings.data_dir.display()
        );
    };
    let (listen, data_dir, mark) = (settings.listen, settings.data_dir.clone(), settings.mark);
    let logs: Vec<(AccessLog, Arc<LogState>)> = std::mem::take(&mut settings.access_logs)
        .into_iter()
        .map(|log| (log.clone(), Arc::new(LogState::new(log.path))))
        .collect();
    let (webhook, dunning) = (settings.webhook.take(), settings.dunning.take());
    let mut parts = Parts::open(settings, mark)?;
    parts.logs = logs.iter().map(|(_, state)| state.clone()).collect();
    let parts = Arc::new(parts);
    // What was under way when the last process ended is tried again now.
    parts.books.with(|ledger| ledger.hurry()).await?;
    let (stream, books, sender) = (&parts.stream, &parts.books, &parts.sender);
    match sender.check_meters().await {
        Ok(()) => {}
        Err(MeterError::Wrong(message)) => bail!("{message}"),
        Err(MeterError::Unknown(error)) => {
            tracing::warn!("{error:#}; usage is taken meanwhile, and sent later");
        }
    }
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listen: cannot bind {listen}"))?;
    let address = listener.local_addr()?.to_string();
    let signal = StopSignal::install()?;
    let (stop, stopped) = watch::channel(false);
    let webhooks = match webhook {
        Some(webhook) => {
            let started = Webhooks::start(webhook, dunning, books, sender, stopped.clone()).await?;
            let path = data_dir.join(WEBHOOK_ADDRESS_FILE);
            write_whole(&path, &started.address.to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
            Some(started)
        }
        None => None,
    };
    let address_file = data_dir.join(ADDRESS_FILE);
    for path in [Some(address_file.as_path()), ready_file]
        .into_iter()
        .flatten()
    {
        write_whole(path, &address).with_context(|| format!("cannot write {}", path.display()))?;
    }
    tracing::info!(%address, "listening");

    let booking = tokio::spawn(book(books.clone(), stream.tail.clone(), stopped.clone()));
    let sending = tokio::spawn(bill(sender.clone(), stopped.clone()));
    let waiting = tokio::spawn(wait(books.clone(), stopped.clone()));
    let keeping = tokio::spawn(keep(books.clone(), stopped.clone()));
    let reconciler = Reconciler::new(books.clone(), sender.clone());
    let reconciling = tokio::spawn(reconcile(reconciler, stopped.clone()));
    let tails = Tail::all(stream, books, &parts.keys, logs)?;
    let tails: Vec<JoinHandle<()>> = tails
        .into_iter()
        .map(|tail| tokio::spawn(tail.run(stopped.clone())))
        .collect();
    let (books, sender) = (books.clone(), sender.clone());
    let (health, grpc) = grpc::routes(Arc::clone(&parts)).await?;
    let http = http::routes().merge(admin::routes()).with_state(parts);
    let routes = http::with_grpc(http, grpc);
    let stopping = async move {
        signal.wait().await;
        tracing::info!("stopping");
        health.stopping().await;
    };
    let left = weir_process::serve(listener, routes, stopping, GRACE).await;
    if left.is_some() {
        tracing::warn!("connections were still open after {GRACE:?}");
    }
    stop.send_replace(true);
    sender.stop();
    for tail in tails {
        tail.await?;
    }
    booking.await?;
    waiting.await?;
    keeping.await?;
    // It only asks; what it would have heard is asked again.
    reconciling.abort();
    if let Some(webhooks) = webhooks {
        webhooks.ended().await?;
    }
    // An intent under way is in the ledger: the next start sends it again under
    // the same identifier.
    if tokio::time::timeout(GRACE, sending).await.is_err() {
        tracing::warn!("Stripe did not answer in time");
    }
    books.book_all().await?;
    tracing::info!("stopped");
    Ok(())
}

/// Takes the folder for this process alone; the lock goes with the process. `None` where
/// another has it.
pub fn lock(folder: &Path) -> anyhow::Result<Option<File>> {
    let path = folder.join("lock");
    let file = File::create(&path)
        .with_context(|| format!("data_dir: cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("data_dir: cannot lock {}", path.display()))
        }
    }
}

/// The same, for whoever comes while a command still works on the folder.
async fn wait_for_lock(folder: &Path) -> anyhow::Result<Option<File>> {
    let begun = tokio::time::Instant::now();
    loop {
        let file = lock(folder)?;
        if file.is_some() || begun.elapsed() >= LOCK_MAX {
            return Ok(file);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Books whenever there is something to book.
async fn book(books: Books, mut tail: watch::Receiver<i64>, mut stopped: watch::Receiver<bool>) {
    loop {
        if let Err(error) = books.book_all().await {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "booking failed; it is tried again"
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if let Err(error) = tell_gaps(&books).await {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "gaps can't be looked up"
            );
        }
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            changed = tail.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}

/// Books what waited long enough for its second witness.
async fn wait(books: Books, mut stopped: watch::Receiver<bool>) {
    loop {
        if let Err(error) = books.book_waiting(false).await {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "booking failed; it is tried again"
            );
        }
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            () = tokio::time::sleep(WAITING_EVERY) => {}
        }
    }
}

/// Lets what is too old go, in small steps between which others book.
async fn keep(books: Books, mut stopped: watch::Receiver<bool>) {
    loop {
        let pause = match books.drop_old().await {
            Ok(true) => KEEP_PAUSE,
            Ok(false) => KEEP_EVERY,
            Err(error) => {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "what is too old can't be let go"
                );
                KEEP_EVERY
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Asks Stripe's sums from time to time.
async fn reconcile(reconciler: Reconciler, mut stopped: watch::Receiver<bool>) {
    loop {
        if let Err(error) = reconciler.run().await {
            tracing::error!(%error, "reconciling failed");
        }
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            () = tokio::time::sleep(RECONCILE_EVERY) => {}
        }
    }
}

/// Says once of events that they are missing.
async fn tell_gaps(books: &Books) -> Result<(), LedgerError> {
    let gaps = books.with(|ledger| ledger.tell_gaps(now_ms())).await?;
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

/// Plans and sends from time to time.
async fn bill(sender: Arc<Sender>, mut stopped: watch::Receiver<bool>) {
    loop {
        if let Err(error) = sender.plan(false).await {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "planning failed"
            );
        }
        if let Err(error) = sender.send_due().await {
            tracing::error!(%error, "sending failed");
        }
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            () = tokio::time::sleep(PLAN_EVERY) => {}
        }
    }
}
