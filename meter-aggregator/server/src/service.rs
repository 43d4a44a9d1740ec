//! The running aggregator: ingest, booking, planning and sending.

use std::{
    fs::{File, TryLockError},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use weir_process::{StopSignal, write_whole};

use crate::{
    admin,
    api::Parts,
    config::{AccessLog, For, Settings},
    grpc, http,
    reconciler::Reconciler,
    rounds,
    stripe::MeterError,
    tail::{LogState, Tail},
    webhook::Webhooks,
};

/// How long requests under way may take after a signal.
const GRACE: Duration = Duration::from_secs(8);

/// How long a start waits for Stripe's word on the meters.
const METERS_MAX: Duration = Duration::from_secs(10);

/// How often it is said that another has the folder.
const STANDBY_TOLD: Duration = Duration::from_secs(60);

/// The file in the data folder that says where the admin API listens.
pub const ADDRESS_FILE: &str = "address";

/// The file in the data folder that says where Stripe's webhooks are taken.
const WEBHOOK_ADDRESS_FILE: &str = "webhook-address";

/// Runs until a signal comes.
pub async fn run(mut settings: Settings, ready_file: Option<&Path>) -> anyhow::Result<()> {
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("data_dir: cannot create {}", settings.data_dir.display()))?;
    let signal = StopSignal::install()?;
    let stopping = signal.wait();
    tokio::pin!(stopping);
    let _lock = tokio::select! {
        () = &mut stopping => return Ok(()),
        lock = wait_for_lock(&settings.data_dir) => lock?,
    };
    let (listen, data_dir) = (settings.listen, settings.data_dir.clone());
    let logs: Vec<(AccessLog, Arc<LogState>)> = std::mem::take(&mut settings.access_logs)
        .into_iter()
        .map(|log| (log.clone(), Arc::new(LogState::new(log.path))))
        .collect();
    let (webhook, dunning) = (settings.webhook.take(), settings.dunning.take());
    let mut opened = tokio::select! {
        () = &mut stopping => return Ok(()),
        opened = Parts::open(settings, For::Service) => opened?,
    };
    opened.parts.refuse_moved().await?;
    opened.parts.logs = logs.iter().map(|(_, state)| state.clone()).collect();
    let parts = Arc::new(opened.parts);
    let (books, sender) = (&parts.books, &parts.sender);
    match tokio::time::timeout(METERS_MAX, sender.check_meters()).await {
        Ok(Ok(())) => {}
        Ok(Err(MeterError::Wrong(message))) => bail!("{message}"),
        Err(_) => {
            tracing::warn!("Stripe does not answer; usage is taken meanwhile, and sent later");
        }
        Ok(Err(MeterError::Unknown(error))) => {
            tracing::warn!("{error:#}; usage is taken meanwhile, and sent later");
        }
    }
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listen: cannot bind {listen}"))?;
    let address = listener.local_addr()?.to_string();
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

    let mut work = JoinSet::new();
    match books.is_embedded() {
        true => drop(work.spawn(rounds::book(books.clone(), stopped.clone()))),
        false => {
            for lane in 0..books.lanes() {
                work.spawn(rounds::book_lane(books.clone(), lane, stopped.clone()));
            }
            work.spawn(rounds::look(books.clone(), stopped.clone()));
        }
    }
    work.spawn(rounds::watch(Arc::clone(&parts), stopped.clone()));
    work.spawn(rounds::wait(books.clone(), stopped.clone()));
    work.spawn(rounds::keep(books.clone(), stopped.clone()));
    let (of, taking) = ((sender.clone(), books.clone()), stopped.clone());
    work.spawn(rounds::take_over(of.0, of.1, taking));
    for tail in Tail::all(books, &parts.keys, logs)? {
        work.spawn(tail.run(stopped.clone()));
    }
    // What these are in the middle of stands in the ledger, and is tried again under the
    // same identifier or asked again.
    let mut calls = JoinSet::new();
    calls.spawn(rounds::bill(sender.clone(), books.clone(), stopped.clone()));
    let reconciler = Reconciler::new(books.clone(), sender.clone());
    let reconciling = tokio::spawn(rounds::reconcile(
        reconciler,
        books.clone(),
        stopped.clone(),
    ));
    if books.is_shared() {
        calls.spawn(rounds::close(
            sender.clone(),
            books.clone(),
            stopped.clone(),
        ));
    }
    // The leases are kept as long as anything works on them.
    let (leave, leaving) = watch::channel(false);
    let fleet = opened
        .fleet
        .map(|fleet| tokio::spawn(async move { fleet.run(leaving).await }));

    let (books, sender) = (books.clone(), sender.clone());
    let (health, grpc) = grpc::routes(Arc::clone(&parts)).await?;
    let http = http::routes().merge(admin::routes()).with_state(parts);
    let routes = http::with_grpc(http, grpc);
    let stopping = async move {
        stopping.await;
        tracing::info!("stopping");
        health.stopping().await;
    };
    let left = weir_process::serve(listener, routes, stopping, GRACE).await;
    if left.is_some() {
        tracing::warn!("connections were still open after {GRACE:?}");
    }
    stop.send_replace(true);
    sender.stop();
    while let Some(ended) = work.join_next().await {
        ended?;
    }
    reconciling.abort();
    if let Some(webhooks) = webhooks {
        webhooks.ended().await?;
    }
    let all_calls = async { while calls.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_calls).await.is_err() {
        tracing::warn!("Stripe did not answer in time");
    }
    if books.is_embedded() {
        books.book_all().await?;
    }
    if let Some(fleet) = fleet {
        leave.send_replace(true);
        fleet.await?;
    }
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

/// The same, as long as it takes: one process works on a folder, and others stand by.
async fn wait_for_lock(folder: &Path) -> anyhow::Result<File> {
    let mut told: Option<tokio::time::Instant> = None;
    loop {
        if let Some(file) = lock(folder)? {
            return Ok(file);
        }
        if told.is_none_or(|told| told.elapsed() >= STANDBY_TOLD) {
            told = Some(tokio::time::Instant::now());
            tracing::info!(
                folder = %folder.display(),
                "standing by: another process has the data_dir"
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
