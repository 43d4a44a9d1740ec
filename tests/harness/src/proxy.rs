//! A TCP proxy that stands for a network which pauses or breaks.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

/// How long the other side may take to accept: nobody else is accepted meanwhile, and
/// who drops the proxy waits.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// What becomes of the bytes that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// They go on.
    Pass,
    /// They wait; who connects is accepted.
    Stall,
    /// There is no connection, and who connects is let go at once.
    Cut,
    /// The proxy goes.
    End,
}

/// Listens on a free port of 127.0.0.1 and hands on to another address. Dropping it
/// closes all connections.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Accepts, and has the port until it ends.
    accepts: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// Both ends of each connection, by its number.
    open: Vec<(u64, [TcpStream; 2])>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, mode: Mode) {
        let mut state = self.lock();
        state.mode = mode;
        if matches!(mode, Mode::Cut | Mode::End) {
            for (_, ends) in state.open.drain(..) {
                close(&ends);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits while everything stalls; says whether bytes may go on.
    fn may_pass(&self) -> bool {
        let state = self.lock();
        let state = self
            .changed
            .wait_while(state, |state| state.mode == Mode::Stall);
        state.unwrap_or_else(PoisonError::into_inner).mode == Mode::Pass
    }
}

impl Proxy {
    /// Hands on to `to`, which may listen later.
    ///
    /// # Errors
    /// Where it can't listen.
    pub fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                mode: Mode::Pass,
                open: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        let accepts = thread::spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming()) {
                let Ok(stream) = stream else { continue };
                if of_thread.lock().mode == Mode::End {
                    return;
                }
                // Who can't be reached is a connection that is closed.
                let _ = connect(number, stream, to, &of_thread);
            }
        });
        Ok(Self {
            address,
            shared,
            accepts: Some(accepts),
        })
    }

    /// `host:port` of the proxy.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on nothing passes, and nobody is told: packets are lost.
    pub fn stall(&self) {
        self.shared.set(Mode::Stall);
    }

    /// Closes what is open, and what is opened from now on.
    pub fn cut(&self) {
        self.shared.set(Mode::Cut);
    }

    /// Everything passes again, also what waited.
    pub fn resume(&self) {
        self.shared.set(Mode::Pass);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.set(Mode::End);
        // Wakes who accepts, and waits for its end, so that the port is free.
        if TcpStream::connect(self.address).is_ok()
            && let Some(accepts) = self.accepts.take()
        {
            // What it panicked with is in the test's output already.
            let _ = accepts.join();
        }
    }
}

fn close(ends: &[TcpStream; 2]) {
    for end in ends {
        // It may be closed already.
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// Joins a connection with one to the other side, both ways, each in a thread.
fn connect(
    number: u64,
    near: TcpStream,
    to: SocketAddr,
    shared: &Arc<Shared>,
) -> anyhow::Result<()> {
    let far = TcpStream::connect_timeout(&to, CONNECT_MAX)?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
    }
    let ways = [
        (near.try_clone()?, far.try_clone()?),
        (far.try_clone()?, near.try_clone()?),
    ];
    let mut state = shared.lock();
    if matches!(state.mode, Mode::Cut | Mode::End) {
        return Ok(());
    }
    state.open.push((number, [near, far]));
    drop(state);
    for (from, into) in ways {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            pass(from, into, &shared);
            let mut state = shared.lock();
            if let Some(at) = state.open.iter().position(|(n, _)| *n == number) {
                close(&state.open.swap_remove(at).1);
            }
        });
    }
    Ok(())
}

/// Passes bytes on until one side ends.
fn pass(mut from: TcpStream, mut into: TcpStream, shared: &Shared) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !shared.may_pass() || into.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
    // An end is news, too.
    shared.may_pass();
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// How long bytes are waited for that must come; they mostly come at once.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// How long it is looked whether something comes where nothing may.
    const GLANCE: Duration = Duration::from_millis(300);

    /// Gives back what comes.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut bytes) {
                        stream.write_all(&bytes[..count]).unwrap();
                    }
                });
            }
        });
        address
    }

    fn client(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address()).unwrap()
    }

    /// What comes back within that time: bytes, or an end as 0; an error where nothing
    /// does.
    fn back(stream: &mut TcpStream, within: Duration) -> std::io::Result<usize> {
        stream.set_read_timeout(Some(within)).unwrap();
        stream.read(&mut [0; 64])
    }

    #[track_caller]
    fn check_comes(stream: &mut TcpStream, count: usize) {
        assert_eq!(back(stream, PATIENCE).unwrap(), count);
    }

    #[track_caller]
    fn check_nothing_comes(stream: &mut TcpStream) {
        let found = back(stream, GLANCE).map_err(|error| error.kind());
        assert_eq!(found, Err(ErrorKind::WouldBlock));
    }

    /// In order, or by a reset.
    #[track_caller]
    fn check_ends(stream: &mut TcpStream) {
        let found = back(stream, PATIENCE).map_err(|error| error.kind());
        assert!(
            matches!(found, Ok(0) | Err(ErrorKind::ConnectionReset)),
            "{found:?}"
        );
    }

    #[test]
    fn it_passes_stalls_goes_on_and_cuts() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut old = client(&proxy);
        old.write_all(b"one").unwrap();
        check_comes(&mut old, 3);
        proxy.stall();
        old.write_all(b"four").unwrap();
        check_nothing_comes(&mut old);
        let mut new = client(&proxy);
        new.write_all(b"five!").unwrap();
        check_nothing_comes(&mut new);
        proxy.resume();
        check_comes(&mut old, 4);
        check_comes(&mut new, 5);
        proxy.cut();
        check_ends(&mut old);
        check_ends(&mut client(&proxy));
        proxy.resume();
        let mut again = client(&proxy);
        again.write_all(b"x").unwrap();
        check_comes(&mut again, 1);
        let address = proxy.address();
        drop(proxy);
        check_ends(&mut again);
        assert!(TcpStream::connect(address).is_err());
    }
}
