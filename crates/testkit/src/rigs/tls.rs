//! `https://localhost` before a server, by nginx, with a certificate of an authority that is made
//! for the test.

use super::program::{self, run};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_SECONDS_MAX: u64 = 60;
const MAKE_CERTIFICATES: &str = r#"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
  -keyout authority.key -out authority.pem -subj "/CN=an authority of a test" \
  -addext basicConstraints=critical,CA:TRUE
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out request.pem -subj /CN=localhost
printf 'subjectAltName=DNS:localhost\n' > extensions
openssl x509 -req -in request.pem -days 2 -CA authority.pem -CAkey authority.key -CAcreateserial \
  -extfile extensions -out certificate.pem
mkdir hashed
cp authority.pem hashed/
openssl rehash hashed
"#;

/// A running nginx; ends with this value.
pub struct Tls {
    folder: TempDir,
    port: u16,
    redirecting_port: u16,
    nginx: Child,
}

impl Tls {
    /// Stands before `server` (`127.0.0.1:PORT`).
    pub fn before(server: &str) -> Self {
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        run(program::command("sh")
            .args(["-ec", MAKE_CERTIFICATES])
            .current_dir(folder.path()))
        .ok();
        let (port, redirecting_port) = free_ports();
        let at = folder.path().display();
        let configuration = format!(
            "daemon off; master_process off; pid {at}/pid; error_log stderr;
             events {{}}
             http {{
               access_log off; client_max_body_size 0;
               client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
               fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
               server {{
                 listen 127.0.0.1:{port} ssl;
                 ssl_certificate {at}/certificate.pem; ssl_certificate_key {at}/key.pem;
                 location / {{
                   proxy_pass http://{server}; proxy_http_version 1.1;
                   proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;
                 }}
               }}
               server {{
                 listen 127.0.0.1:{redirecting_port};
                 return 308 https://localhost:{port}$request_uri;
               }}
             }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration).expect("cannot write nginx.conf");
        let nginx = program::daemon(program::find("nginx"))
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("cannot make a log"))
            .spawn()
            .expect("cannot start nginx");
        let mut tls = Self {
            folder,
            port,
            redirecting_port,
            nginx,
        };
        tls.wait_until_up();
        tls
    }

    fn wait_until_up(&mut self) {
        let until = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.nginx.try_wait().expect("cannot ask for nginx");
            assert!(
                ended.is_none() && Instant::now() < until,
                "nginx did not start ({ended:?}):\n{}",
                std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `https://localhost:PORT`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// `http://localhost:PORT`, which sends to the former.
    pub fn redirecting_url(&self) -> String {
        format!("http://localhost:{}", self.redirecting_port)
    }

    /// The authority's certificate (PEM).
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// A folder with it, under the name that OpenSSL looks for.
    pub fn authorities(&self) -> PathBuf {
        self.folder.path().join("hashed")
    }
}

/// Two ports that were free a moment ago; nginx cannot be given port 0.
fn free_ports() -> (u16, u16) {
    let listener = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (first, second) = (listener(), listener());
    let port = |listener: &TcpListener| listener.local_addr().expect("it listens").port();
    (port(&first), port(&second))
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
    }
}
