//! A real socket in a directory of its own.

use super::*;

/// A directory that ends with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gateway-control-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("run/control.sock")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn request(word: &str) -> ControlRequest {
    ControlRequest { argv: vec!["show".into(), word.into()], json: true }
}

/// A daemon that answers with the request's words, `count` times.
fn daemon(server: Server, count: usize) -> tokio::task::JoinHandle<()> {
    let (tx, mut rx) = mpsc::channel::<Call>(1);
    let served = tokio::spawn(server.run(tx));
    tokio::spawn(async move {
        for _ in 0..count {
            let Some((request, answer)) = rx.recv().await else { break };
            let text = request.argv.join(" ");
            let _client_may_be_gone = answer.send(ControlResponse { ok: true, json: request.json.into(), text, error: String::new() });
        }
        drop(rx);
        served.await.unwrap();
    })
}

async fn ask_blocking(path: PathBuf, request: ControlRequest) -> io::Result<ControlResponse> {
    tokio::task::spawn_blocking(move || call(&path, &request)).await.unwrap()
}

#[tokio::test]
async fn a_request_is_answered_and_the_file_goes_with_the_server() {
    let dir = Dir::new("answer");
    let path = dir.socket();
    let server = Server::bind(&path, 0o660).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
    let daemon = daemon(server, 2);
    for word in ["ssp", "a\nb"] {
        let answer = ask_blocking(path.clone(), request(word)).await.unwrap();
        assert_eq!(answer, ControlResponse { ok: true, json: true.into(), text: format!("show {word}"), error: String::new() });
    }
    daemon.await.unwrap();
    assert!(!path.exists());
    assert!(ask_blocking(path, request("ssp")).await.is_err());
}

#[tokio::test]
async fn many_requests_on_one_connection_and_what_is_not_understood() {
    let dir = Dir::new("many");
    let path = dir.socket();
    let _daemon = daemon(Server::bind(&path, 0o600).unwrap(), 100);
    let (read, mut write) = UnixStream::connect(&path).await.unwrap().into_split();
    let mut lines = tokio::io::BufReader::new(read).lines();
    write.write_all(b"nonsense\n{\"argv\":[\"show\",\"x\"]}\n{\"argv\":[],\"extra\":1}\n").await.unwrap();
    let mut next = async || serde_json::from_str::<ControlResponse>(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert!(next().await.error.starts_with("request is not understood"));
    assert_eq!(next().await.text, "show x");
    assert!(next().await.error.contains("extra"));
}

#[tokio::test]
async fn a_request_without_end_is_refused_at_its_limit() {
    let dir = Dir::new("long");
    let path = dir.socket();
    let _daemon = daemon(Server::bind(&path, 0o600).unwrap(), 100);
    let (read, mut write) = UnixStream::connect(&path).await.unwrap().into_split();
    write.write_all(&vec![b'x'; REQUEST_BYTES_MAX]).await.unwrap();
    let mut lines = tokio::io::BufReader::new(read).lines();
    let answer: ControlResponse = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert!(answer.error.contains("longer than 65536"), "{}", answer.error);
    assert_eq!(lines.next_line().await.unwrap(), None, "and closed");
    let long = ControlRequest { argv: vec!["x".repeat(REQUEST_BYTES_MAX)], json: false };
    assert_eq!(ask_blocking(path, long).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_stale_file_is_replaced_and_a_living_daemon_is_not() {
    let dir = Dir::new("stale");
    let path = dir.socket();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let stale = identity(&path).unwrap();
    let server = Server::bind(&path, 0o600).unwrap();
    assert_ne!(identity(&path).unwrap(), stale);
    let _daemon = daemon(server, 100);
    assert_eq!(Server::bind(&path, 0o600).map(|_| ()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert!(ask_blocking(path.clone(), request("ssp")).await.unwrap().ok, "the living one still answers");
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left beside the socket: {left:?}");
}

#[tokio::test]
async fn a_file_that_is_no_socket_stays() {
    let dir = Dir::new("file");
    let path = dir.0.join("precious");
    std::fs::write(&path, "text").unwrap();
    assert_eq!(Server::bind(&path, 0o600).map(|_| ()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
}

#[tokio::test]
async fn a_daemon_that_drops_the_question_is_named() {
    let dir = Dir::new("dropped");
    let path = dir.socket();
    let (tx, mut rx) = mpsc::channel::<Call>(1);
    tokio::spawn(Server::bind(&path, 0o600).unwrap().run(tx));
    tokio::spawn(async move { drop(rx.recv().await) });
    let answer = ask_blocking(path, request("ssp")).await.unwrap();
    assert_eq!((answer.ok, answer.error.as_str()), (false, "the daemon is shutting down"));
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let dir = Dir::new("large");
    let path = dir.socket();
    let (tx, mut rx) = mpsc::channel::<Call>(1);
    tokio::spawn(Server::bind(&path, 0o600).unwrap().run(tx));
    let text = "sa ".repeat(2_000_000);
    let sent = text.clone();
    tokio::spawn(async move {
        let (_, answer) = rx.recv().await.unwrap();
        answer.send(ControlResponse { ok: true, text: sent, ..ControlResponse::default() }).unwrap();
        rx.recv().await;
    });
    assert_eq!(ask_blocking(path, request("all")).await.unwrap().text, text);
}
