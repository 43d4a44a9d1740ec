//! The running aggregator: ingest, booking, planning and sending.

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use weir_process::{StopSignal, now_ms, write_whole};

use crate::{
    admin,
    api::Ingest,
    books::Books,
    config::{AccessLog, Settings},
    http,
    ledger::{Ledger, LedgerError},
    sender::Sender,
    stream::Stream,
    stripe::{MeterError, Stripe},
    tail::{LogState, Tail},
};

/// How long requests under way may take after a signal.
const GRACE: Duration = Duration::from_secs(8);

/// How often hours are planned and intents are sent.
const PLAN_EVERY: Duration = Duration::from_secs(10);

/// The file in the data folder that says where the admin API listens.
pub const ADDRESS_FILE: &str = "address";

/// Runs until a signal comes.
pub async fn run(settings: Settings, ready_file: Option<&Path>) -> anyhow::Result<()> {
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("data_dir: cannot create {}", settings.data_dir.display()))?;
    let _lock = lock(&settings.data_dir)?;
    let stream = Arc::new(Stream::open(&settings.data_dir)?);
    let books = Books::new(Ledger::open(&settings.data_dir)?, stream.reader()?);
    let sender = Arc::new(Sender::new(Stripe::new(settings.stripe)?, books.clone()));
    match sender.check_meters().await {
        Ok(()) => {}
        Err(MeterError::Wrong(message)) => bail!("{message}"),
        Err(MeterError::Unknown(error)) => {
            tracing::warn!("{error:#}; usage is taken meanwhile, and sent later");
        }
    }
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("listen: cannot bind {}", settings.listen))?;
    let address = listener.local_addr()?.to_string();
    let signal = StopSignal::install()?;
    let address_file = settings.data_dir.join(ADDRESS_FILE);
    for path in [Some(address_file.as_path()), ready_file]
        .into_iter()
        .flatten()
    {
        write_whole(path, &address).with_context(|| format!("cannot write {}", path.display()))?;
    }
    tracing::info!(%address, "listening");

    let (stop, stopped) = watch::channel(false);
    let booking = tokio::spawn(book(books.clone(), stream.tail.clone(), stopped.clone()));
    let sending = tokio::spawn(bill(sender.clone(), stopped.clone()));
    let keys = Arc::new(settings.keys);
    let logs: Vec<(AccessLog, Arc<LogState>)> = settings
        .access_logs
        .into_iter()
        .map(|log| (log.clone(), Arc::new(LogState::new(log.path))))
        .collect();
    let states = logs.iter().map(|(_, state)| state.clone()).collect();
    let tails = Tail::all(&stream, &books, &keys, logs)?;
    let tails: Vec<JoinHandle<()>> = tails
        .into_iter()
        .map(|tail| tokio::spawn(tail.run(stopped.clone())))
        .collect();
    let ingest = Arc::new(Ingest {
        stream,
        books: books.clone(),
        sender,
        producers: settings.producers,
        logs: states,
        admin_token: settings.admin_token,
        keys,
    });
    let routes = http::routes().merge(admin::routes()).with_state(ingest);
    let stopping = async {
        signal.wait().await;
        tracing::info!("stopping");
    };
    let left = weir_process::serve(listener, routes, stopping, GRACE).await;
    if left.is_some() {
        tracing::warn!("connections were still open after {GRACE:?}");
    }
    stop.send_replace(true);
    for tail in tails {
        tail.await?;
    }
    booking.await?;
    // An intent under way is in the ledger: the next start sends it again under
    // the same identifier.
    if tokio::time::timeout(GRACE, sending).await.is_err() {
        tracing::warn!("Stripe did not answer in time");
    }
    books.book_all().await?;
    tracing::info!("stopped");
    Ok(())
}

/// Takes the folder for this process alone; the lock goes with the process.
pub fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path)
        .with_context(|| format!("data_dir: cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("data_dir: another aggregator runs on {}", folder.display());
    }
    Ok(file)
}

/// Books whenever there is something to book.
async fn book(books: Books, mut tail: watch::Receiver<i64>, mut stopped: watch::Receiver<bool>) {
    loop {
        if let Err(error) = books.book_all().await {
            tracing::error!(error = %anyhow::Error::new(error), "booking failed; it is tried again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if let Err(error) = tell_gaps(&books).await {
            tracing::error!(error = %anyhow::Error::new(error), "gaps can't be looked up");
        }
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            changed = tail.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
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
            tracing::error!(error = %anyhow::Error::new(error), "planning failed");
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
