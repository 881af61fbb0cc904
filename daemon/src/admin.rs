//! Health and metrics over HTTP: `/livez`, `/readyz`, `/metrics`. What an agent says comes from the pinned records, as for the
//! tools; a thread of its own serves it, so that nobody who asks disturbs the data path.

mod controller;
mod metrics;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use crate::state::StateError;

pub(crate) use self::{controller::OfController, metrics::OfAgent};

/// Connections at once: a kubelet and some scrapers.
const CONNECTIONS: usize = 16;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may stay, whatever it does.
const CONNECTION: Duration = Duration::from_mins(5);

/// What is asked for answers.
#[derive(Debug)]
pub(crate) enum Admin {
    /// An agent's.
    Agent(OfAgent),
    /// A controller's.
    Controller(OfController),
}

/// Listens, and serves in a thread of its own for as long as this process lives.
pub(crate) fn start(address: SocketAddr, admin: Admin) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        if let Err(error) = runtime.block_on(serve(listener, Arc::new(admin))) {
            warn!("health and metrics are not served: {error}");
        }
    };
    std::thread::Builder::new().name("admin".into()).spawn(serve)?;
    info!(%address, "serving /livez, /readyz and /metrics");
    Ok(())
}

async fn serve(listener: TcpListener, admin: Arc<Admin>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!("a connection for health or metrics was not accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, std::convert::Infallible>(admin.answer(&request)) }
            });
            let mut http = http1::Builder::new();
            let served =
                http.timer(TokioTimer::new()).header_read_timeout(HEAD).serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION, served).await {
                debug!("a connection for health or metrics has failed: {error}");
            }
            drop(place);
        });
    }
}

impl Admin {
    fn pending(&self) -> Vec<String> {
        match self {
            Self::Agent(agent) => agent.readiness.pending(),
            Self::Controller(controller) => controller.pending(),
        }
    }

    fn metrics(&self) -> Result<String, StateError> {
        match self {
            Self::Agent(agent) => agent.metrics(),
            Self::Controller(controller) => Ok(controller.metrics()),
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered\n");
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.pending() {
                pending if pending.is_empty() => text(StatusCode::OK, "ok\n"),
                pending => text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", pending.join(", "))),
            },
            "/metrics" => match self.metrics() {
                Ok(said) => {
                    let mut answer = text(StatusCode::OK, said);
                    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                    answer.headers_mut().insert(CONTENT_TYPE, kind);
                    answer
                }
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
