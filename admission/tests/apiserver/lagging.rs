//! A way to the API server on which watches can be made to lag: what comes back on connections that were open at that moment is held up;
//! new connections work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The way; it ends with the test's runtime.
pub(crate) struct Lagging {
    /// `https://127.0.0.1:PORT`
    pub(crate) url: String,
    /// Connections with smaller numbers are held up.
    held: watch::Sender<u64>,
    next: Arc<AtomicU64>,
}

impl Lagging {
    /// A way to the API server at `https://ADDRESS`.
    pub(crate) async fn start(target: &str) -> Self {
        let target = target.trim_start_matches("https://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a port");
        let url = format!("https://{}", listener.local_addr().expect("it is bound"));
        let held = watch::Sender::new(0);
        let next = Arc::new(AtomicU64::new(0));
        let way = Self { url, held: held.clone(), next: Arc::clone(&next) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = next.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(carry(client, target.clone(), number, held.subscribe()));
            }
        });
        way
    }

    /// From now on what is open says nothing more.
    pub(crate) fn hold(&self) {
        self.held.send_replace(self.next.load(Ordering::Relaxed));
    }

    /// What was held up comes.
    pub(crate) fn release(&self) {
        self.held.send_replace(0);
    }
}

async fn carry(client: TcpStream, target: String, number: u64, mut held: watch::Receiver<u64>) -> Option<()> {
    let server = TcpStream::connect(target).await.ok()?;
    let (mut from_server, mut to_server) = server.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let up = async move {
        drop(copy(&mut from_client, &mut to_server).await);
    };
    let down = async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
            held.wait_for(|held| number >= *held).await.ok()?;
            to_client.write_all(&buffer[..read]).await.ok()?;
        }
    };
    tokio::select! {
        () = up => None,
        ended = down => ended,
    }
}
