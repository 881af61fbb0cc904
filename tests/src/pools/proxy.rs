//! nginx and haproxy as reverse proxies, with a pool of connections to the service.

use super::stage::PORT;
use crate::{
    http::Request,
    lab::{LAB_DIR, Pod},
    process::Process,
    wait_for,
};
use anyhow::{Context as _, Result};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Starts nginx in front of `to`, and waits until it answers.
///
/// # Errors
/// When it does not start: its own words are in the message.
pub fn nginx(pod: &Pod, to: SocketAddr) -> Result<Process> {
    let directory = directory("nginx")?;
    let configuration = directory.join("nginx.conf");
    std::fs::write(&configuration, nginx_conf(&directory, to))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&directory).arg("-c").arg(&configuration).args(["-e", "stderr"]);
    answering(pod, command)
}

/// The same with haproxy.
///
/// # Errors
/// When it does not start: its own words are in the message.
pub fn haproxy(pod: &Pod, to: SocketAddr) -> Result<Process> {
    let configuration = directory("haproxy")?.join("haproxy.cfg");
    std::fs::write(&configuration, haproxy_cfg(to))?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(configuration);
    answering(pod, command)
}

fn directory(name: &str) -> Result<PathBuf> {
    let directory = Path::new(LAB_DIR).join(format!("pool-{name}"));
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn answering(pod: &Pod, command: Command) -> Result<Process> {
    let mut process = pod.spawn(command)?;
    let answer = wait_for("the proxy to answer", Duration::from_secs(20), || {
        if let Err(error) = process.check_alive() {
            return Some(Err(error));
        }
        let mut http = pod.http(pod.v4_port(PORT)).ok()?;
        // Of no kind: no server counts it.
        http.exchange(&Request::get("/bytes/1")).ok().map(Ok)
    });
    answer?.with_context(|| format!("the proxy in {}: {}", pod.name(), process.output().tail()))?;
    Ok(process)
}

/// One process without a master: nothing is left when it is killed.
fn nginx_conf(directory: &Path, to: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        r#"daemon off;
master_process off;
user root;
pid {directory}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream service {{
        server {to};
        keepalive 16;
    }}
    server {{
        listen {PORT};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 30s;
        }}
    }}
}}
"#
    )
}

/// Of one request's connection the next one's of anybody is served.
fn haproxy_cfg(to: SocketAddr) -> String {
    format!(
        "defaults\n    mode http\n    timeout connect 30s\n    timeout client 60s\n    timeout server 30s\n    http-reuse always\n\
         frontend visitors\n    bind :{PORT}\n    default_backend service\n\
         backend service\n    server service {to}\n"
    )
}
