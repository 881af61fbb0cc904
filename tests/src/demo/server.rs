//! One workload of the shop: the real nginx in a pod, which writes down each request that it served.
//!
//! | target | answer |
//! |---|---|
//! | `/` | its name |
//! | `/checkout` | what the next service says; where there is none, its own name |
//! | `/bytes/N` | a file made by [`Server::file`] |
//! | `/upload` | the name of the file in which it put the body |
//!
//! The header `x-path` of an answer names the servers that took part, the first one first.

use crate::{
    Request,
    digest::{Digest, body},
    lab::{LAB_DIR, Pod},
    process::Process,
    wait_for,
};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The port that every server listens on.
pub const PORT: u16 = 8080;

/// A running server.
#[derive(Debug)]
pub struct Server {
    pod: Pod,
    directory: PathBuf,
    /// Killed with the server.
    _process: Process,
}

impl Server {
    /// Starts it in `pod`, under the pod's name. A call of `/checkout` goes on to `next`.
    pub fn start(pod: Pod, next: Option<SocketAddr>) -> Result<Self> {
        let directory = Path::new(LAB_DIR).join(pod.name());
        std::fs::create_dir_all(directory.join("bytes"))?;
        let configuration = directory.join("nginx.conf");
        std::fs::write(&configuration, configure(pod.name(), next, &directory))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&directory).arg("-c").arg(&configuration);
        // Without it, the error log that was compiled in is opened before the configuration is read.
        command.arg("-e").arg(directory.join("error.log"));
        let mut process = pod.spawn(command)?;
        let answer = wait_for("nginx to answer", Duration::from_secs(10), || {
            if let Err(error) = process.check_alive() {
                return Some(Err(error));
            }
            let mut http = pod.http(pod.v4_port(PORT)).ok()?;
            http.exchange(&Request::get("/ready")).ok().map(Ok)
        });
        answer?.with_context(|| format!("nginx in {}", pod.name()))?;
        Ok(Self { pod, directory, _process: process })
    }

    /// Its name, and its pod's.
    pub fn name(&self) -> &str {
        self.pod.name()
    }

    /// Where it listens, in both families.
    pub fn endpoints(&self) -> [SocketAddr; 2] {
        [self.pod.v4_port(PORT), self.pod.v6_port(PORT)]
    }

    /// Makes the file `/bytes/<length>`: the first bytes of its own stream.
    pub fn file(&self, length: usize) -> Result<()> {
        let path = self.directory.join("bytes").join(length.to_string());
        std::fs::write(&path, body(self.name(), length)).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Length and digest of the body that it put into a file, as its answer to `/upload` names it. Removes the file.
    pub fn received(&self, answer: &[u8]) -> Result<Digest> {
        let path = PathBuf::from(String::from_utf8_lossy(answer).trim());
        ensure!(path.starts_with(self.directory.join("body")), "{} says nothing of a body", self.name());
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        std::fs::remove_file(&path)?;
        let mut digest = Digest::default();
        digest.update(&bytes);
        Ok(digest)
    }

    /// How many requests it has served, by their key (empty: none).
    pub fn ledger(&self) -> Result<BTreeMap<String, u64>> {
        let path = self.directory.join("access.log");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut ledger = BTreeMap::new();
        // A line without an end is still being written.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let member = line.trim_end().split(',').find_map(|member| member.strip_prefix("sidetrack="));
            *ledger.entry(member.unwrap_or_default().to_owned()).or_default() += 1;
        }
        Ok(ledger)
    }
}

/// One process without a master: nothing is left when it is killed. The upload's second hop reads nothing; it is
/// there because nginx takes in a body only when somebody wants it.
fn configure(name: &str, next: Option<SocketAddr>, directory: &Path) -> String {
    let directory = directory.display();
    // Pooled connections, which carry all kinds of requests. nginx passes on `baggage` as any header.
    let (upstream, checkout) = match next {
        Some(next) => (
            format!("upstream next {{ server {next}; keepalive 8; keepalive_requests 1000000000; }}"),
            format!(
                r#"location = /checkout {{
            proxy_pass http://next/checkout;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_hide_header x-path;
            add_header x-path "{name} $upstream_http_x_path" always;
        }}"#
            ),
        ),
        None => Default::default(),
    };
    format!(
        r#"daemon off;
master_process off;
user root;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    log_format baggage '$http_baggage';
    access_log {directory}/access.log baggage;
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {upstream}
    server {{
        listen {PORT};
        listen [::]:{PORT};
        add_header x-path {name} always;
        location / {{ return 200 "{name}\n"; }}
        location = /ready {{ access_log off; return 204; }}
        location /bytes/ {{ alias {directory}/bytes/; }}
        {checkout}
        location = /upload {{
            client_body_in_file_only on;
            proxy_pass http://unix:{directory}/file.sock:/;
            proxy_pass_request_body off;
            proxy_set_header x-file $request_body_file;
            proxy_set_header Content-Length "";
        }}
    }}
    server {{
        listen unix:{directory}/file.sock;
        access_log off;
        location / {{ return 200 "$http_x_file\n"; }}
    }}
}}
"#
    )
}
