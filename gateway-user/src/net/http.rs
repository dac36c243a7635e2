//! The metrics listener: `GET /metrics`, nothing else.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 16;
/// A client must have sent its request's head in this time.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// A connection lives no longer than this, so that slow readers cannot hold all of them.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Buffer of a connection, which bounds the request's head.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// Renders all metrics in Prometheus' text format 0.0.4.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// A bound listener.
pub struct Server {
    listener: TcpListener,
    header_time: Duration,
}

impl Server {
    /// Binds; the error says why not.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(addr).await?, header_time: HEADER_TIME_MAX })
    }

    /// The address bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for ever; cancel by dropping the future (running connections end by their own time limit).
    pub async fn run(self, render: Render) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::debug!(error = %e, "metrics: accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (render, header_time) = (render.clone(), self.header_time);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let response = answer(&request, &render);
                    async move { Ok::<_, Infallible>(response) }
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(header_time).max_buf_size(BUFFER_BYTES_MAX);
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                match tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => tracing::debug!(error = %e, "metrics: connection"),
                    Err(_) => tracing::debug!("metrics: connection was too slow"),
                }
                drop(permit);
            });
        }
    }
}

/// Binds `addr` and serves for ever.
pub async fn serve(addr: SocketAddr, render: Render) -> io::Result<()> {
    Server::bind(addr).await?.run(render).await;
    Ok(())
}

fn answer(request: &Request<Incoming>, render: &Render) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, render()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn start() -> SocketAddr {
        let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = server.local_addr().unwrap();
        tokio::spawn(server.run(Arc::new(|| "gateway_up 1\n".to_owned())));
        addr
    }

    async fn ask(addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_served_and_nothing_else_is() {
        let addr = start().await;
        let answer = ask(addr, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.ends_with("\r\n\r\ngateway_up 1\n"), "{answer}");
        let answer = ask(addr, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let answer = ask(addr, "POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        let answer = ask(addr, "\u{1}garbage\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let addr = start().await;
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let long = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n", "y".repeat(2 * BUFFER_BYTES_MAX));
        // The server may close before it has read all of it.
        let _sent_or_reset = stream.write_all(long.as_bytes()).await;
        let mut answer = Vec::new();
        let _end_or_reset = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    }

    #[tokio::test]
    async fn idle_connections_are_closed_and_make_room() {
        let mut server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        server.header_time = Duration::from_millis(200);
        let addr = server.local_addr().unwrap();
        tokio::spawn(server.run(Arc::new(|| "gateway_up 1\n".to_owned())));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            idle.push(TcpStream::connect(addr).await.unwrap());
        }
        let answer = ask(addr, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let mut rest = Vec::new();
        let _end_or_reset = idle[0].read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
    }
}
