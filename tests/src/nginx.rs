//! The real nginx, one process in a pod.
//!
//! | target | answer |
//! |---|---|
//! | `/`, and anything else | its name |
//! | `/bytes/N` | the file made by [`Nginx::file`]: the first N bytes of its own stream |
//! | `/upload` | the length of the body, after all of it was received |
//!
//! Every answer has `x-served-by`.

use crate::{
    digest,
    http::Request,
    lab::{LAB_DIR, Pod},
    process::Process,
    wait_for,
};
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// When it closes a connection by itself.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After so many requests (`keepalive_requests`, 1,000 unless told otherwise).
    pub requests: u32,
    /// After so long without any (`keepalive_timeout`).
    pub idle: Duration,
}

impl Default for Patience {
    /// Never, as far as a test can tell.
    fn default() -> Self {
        Self { requests: 1_000_000_000, idle: Duration::from_mins(10) }
    }
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    name: String,
    directory: PathBuf,
    process: Process,
}

impl Nginx {
    /// Starts one in `pod` that calls itself `name`, on all addresses of both families, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start: its own words are in the message.
    pub fn start(pod: &Pod, name: &str, port: u16) -> Result<Self> {
        Self::start_with(pod, name, port, Patience::default())
    }

    /// The same, of one that closes connections by itself.
    ///
    /// # Errors
    /// When it does not start: its own words are in the message.
    pub fn start_with(pod: &Pod, name: &str, port: u16, patience: Patience) -> Result<Self> {
        let directory = Path::new(LAB_DIR).join(format!("nginx-{name}-{port}"));
        std::fs::create_dir_all(directory.join("bytes"))?;
        let configuration = directory.join("nginx.conf");
        std::fs::write(&configuration, configure(name, port, &directory, patience))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&directory).arg("-c").arg(&configuration);
        // Without it, the error log that was compiled in is opened before the configuration is read.
        command.arg("-e").arg(directory.join("error.log"));
        let mut process = pod.spawn(command)?;
        let answer = wait_for("nginx to answer", Duration::from_secs(10), || {
            if let Err(error) = process.check_alive() {
                return Some(Err(error));
            }
            let mut http = pod.http(pod.v4_port(port)).ok()?;
            http.exchange(&Request::get("/")).ok().map(Ok)
        });
        answer?.with_context(|| format!("nginx in {}", pod.name()))?;
        Ok(Self { name: name.to_owned(), directory, process })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process, for CPU times.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Makes the file `/bytes/<length>`: the first bytes of its own stream.
    ///
    /// # Errors
    /// When there is no room.
    pub fn file(&self, length: usize) -> Result<()> {
        let path = self.directory.join("bytes").join(length.to_string());
        std::fs::write(&path, digest::body(&self.name, length))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// One process without a master: nothing is left when it is killed. The upload's second hop reads nothing; it is
/// there because nginx takes in a body only when somebody wants it.
fn configure(name: &str, port: u16, directory: &Path, patience: Patience) -> String {
    let Patience { requests, idle } = patience;
    let idle = idle.as_millis();
    let directory = directory.display();
    format!(
        r#"daemon off;
master_process off;
user root;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests {requests};
    keepalive_timeout {idle}ms;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    large_client_header_buffers 8 32k;
    server {{
        listen {port};
        listen [::]:{port};
        add_header x-served-by {name} always;
        location / {{ return 200 "{name}\n"; }}
        location /bytes/ {{ alias {directory}/bytes/; }}
        location = /upload {{
            client_body_buffer_size 256k;
            proxy_pass http://unix:{directory}/length.sock:/;
            proxy_pass_request_body off;
            proxy_set_header x-length $content_length;
            proxy_set_header Content-Length "";
        }}
    }}
    server {{
        listen unix:{directory}/length.sock;
        location / {{ return 200 "$http_x_length\n"; }}
    }}
}}
"#
    )
}
