//! A Postgres of the tests' own.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    ledger::{Place, PostgresSettings},
    sql::Session,
};

/// A server of this process. It ends with it: whoever starts it asks the kernel to.
pub struct Server {
    child: Mutex<Child>,
    folder: PathBuf,
    /// In the name of its socket, too.
    port: String,
}

/// Where Debian has the programs, which are not in the path there.
fn program(name: &str) -> PathBuf {
    let in_path = std::env::var_os("PATH").into_iter().flat_map(|path| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .collect::<Vec<_>>()
    });
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter();
    let debian = debian
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(name));
    in_path
        .chain(debian)
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is neither in the path nor in /usr/lib/postgresql"))
}

/// Makes a file the one's who runs Postgres, who alone may read it.
pub fn give_to_postgres(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if !path.is_dir() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
        nix::unistd::chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

/// Runs a program as who may run Postgres: root may not.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new(program);
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.current_dir("/");
    command
}

impl Server {
    /// Starts one with that much care for what is on disk.
    pub fn start(settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("weir-pg-")
            .tempdir()
            .unwrap()
            .keep();
        give_to_postgres(&folder);
        let data = folder.join("data");
        let made = as_postgres(&program("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-U", "weir", "-A", "trust", "-E", "UTF8", "--no-sync"])
            // Its order of texts is not SQLite's.
            .args(["--locale", "C.UTF-8", "--locale-provider", "icu"])
            .args(["--icu-locale", "en-US"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        let mut command = as_postgres(Path::new("/bin/sh"));
        // The shell ends the server once this process is gone, whose end of the pipe closes.
        command
            .args(["-c", WATCH, "sh"])
            .arg(program("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&folder)
            .args(["-c", "listen_addresses=", "-c", "max_connections=200"])
            .args(["-c", "max_wal_size=256MB", "-c", "wal_keep_size=0"]);
        for setting in settings {
            command.args(["-c", setting]);
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self {
            child: Mutex::new(child),
            folder,
            port: settings
                .iter()
                .find_map(|setting| setting.strip_prefix("port="))
                .unwrap_or("5432")
                .to_owned(),
        };
        let begun = Instant::now();
        while let Err(error) = server.try_batch("postgres", "SELECT 1") {
            assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn url(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://weir@{folder}:{}/{database}", self.port)
    }

    fn try_batch(&self, database: &str, sql: &str) -> crate::sql::Result<()> {
        Session::new(&self.url(database)).unwrap().batch(sql)
    }

    /// A new database, empty.
    pub fn database(&self) -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let begun = Instant::now();
        // Two at once are in each other's way.
        while let Err(error) = self.try_batch("postgres", &format!("CREATE DATABASE {name}")) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Place::Postgres(PostgresSettings {
            url: self.url(&name),
        })
    }

    /// Stops it, and takes its files away.
    pub fn stop(&self) {
        let mut child = self.child.lock().unwrap();
        drop(child.stdin.take());
        let _ = child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs the server until standard input ends; then it is stopped, and its files are gone.
/// A signal to the tests' whole group ends the tests, and so this.
const WATCH: &str = r#"
trap '' TERM INT HUP
data="$3"
"$@" < /dev/null &
server=$!
cat > /dev/null
kill -QUIT "$server"
wait "$server"
rm -rf "$(dirname "$data")"
"#;

/// The server that the tests of this process share. It does not care for what is on disk.
pub fn postgres() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&["fsync=off", "full_page_writes=off"]))
}
