//! Certificates in files, mounted as the kubelet mounts them (F22).

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::sleep;

use crate::support::{Authority, Client, Folder, LONG, Server, client_config, pod, review, tls};

/// Fills a directory of its own and swaps `..data`, as the kubelet does for Secrets.
fn mount(folder: &Path, generation: usize, files: &[(&str, &str)]) {
    let directory = folder.join(format!("..{generation}"));
    std::fs::create_dir(&directory).expect("a new directory");
    for (name, contents) in files {
        std::fs::write(directory.join(name), contents).expect("written");
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), link).expect("linked");
        }
    }
    symlink(&directory, folder.join("..data_tmp")).expect("linked");
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("swapped");
}

/// What the server shows to a new connection.
async fn served(server: &Server) -> CertificateDer<'static> {
    let stream = tls(server.webhook, Arc::clone(&server.trust)).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")
}

/// Waits until this one is served; how long that took.
async fn served_after(server: &Server, pem: &str) -> Duration {
    let began = Instant::now();
    while served(server).await != der(pem) {
        assert!(began.elapsed() < LONG, "it is not taken up: {}", server.process.dump());
        sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn f22_a_swap_of_data_serves_within_a_second_and_breaks_no_connection() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let (certificate, key) = authority.leaf(1);
    mount(folder.path(), 0, &[("tls.crt", &certificate), ("tls.key", &key)]);
    let server = Server::start_in(folder, authority, &[], None);
    server.ready().await;
    assert_eq!(served(&server).await, der(&certificate));
    let mut before = server.connect().await;
    assert!(before.review(review("1", pod())).await.expect("an answer").has_patch());
    let (next, next_key) = server.authority.leaf(2);
    mount(server.folder.path(), 1, &[("tls.crt", &next), ("tls.key", &next_key)]);
    let took = served_after(&server, &next).await;
    // Twice as much as promised, for a machine with other things to do.
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(before.review(review("2", pod())).await.expect("the old connection lives").has_patch());
    assert_eq!(server.metric("certificate_loads_total").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn f22_what_cannot_be_served_leaves_the_last_one_in_service() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let (good, good_key) = authority.leaf(1);
    mount(folder.path(), 0, &[("tls.crt", &good), ("tls.key", &good_key)]);
    let server = Server::start_in(folder, authority, &[], None);
    server.ready().await;
    let (other, _) = server.authority.leaf(2);
    let (expired, expired_key) = server.authority.leaf(-1);
    let half = &good[..good.len() / 2];
    let bad = [
        (other.as_str(), good_key.as_str(), "cannot be used together"),
        (expired.as_str(), expired_key.as_str(), "it has expired"),
        (half, good_key.as_str(), "it is no PEM text"),
        ("", good_key.as_str(), "there is no PEM certificate in it"),
        (good.as_str(), "", "there is no PEM private key in it"),
    ];
    for (generation, (certificate, key, said)) in bad.into_iter().enumerate() {
        let lines = server.process.line_count();
        mount(server.folder.path(), generation + 1, &[("tls.crt", certificate), ("tls.key", key)]);
        let line = server.process.wait_for_line_after(lines, said, LONG);
        let line = line.unwrap_or_else(|| panic!("{said}: {}", server.process.dump()));
        assert!(line.starts_with("[ERROR] ") && line.ends_with("; the last one stays in service"), "{line}");
        assert_eq!(served(&server).await, der(&good));
        sleep(Duration::from_millis(1200)).await;
        let told = server.process.stderr_lines().iter().filter(|line| line.contains(said)).count();
        assert_eq!(told, 1, "once, not at every look: {}", server.process.dump());
    }
    assert_eq!(server.get("/readyz").await.0, 200);
    let (next, next_key) = server.authority.leaf(2);
    mount(server.folder.path(), 99, &[("tls.crt", &next), ("tls.key", &next_key)]);
    served_after(&server, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f22_swaps_every_100_ms_under_handshakes_lose_nobody() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let (certificate, key) = authority.leaf(1);
    mount(folder.path(), 0, &[("tls.crt", &certificate), ("tls.key", &key)]);
    let server = Server::start_in(folder, authority, &[], None);
    server.ready().await;
    let pairs: Vec<_> = (0..30).map(|_| server.authority.leaf(1)).collect();
    let (path, to, trust) = (server.folder.path().to_owned(), server.webhook, Arc::clone(&server.trust));
    let shaking = tokio::spawn(async move {
        for count in 0..150 {
            let mut client = Client::connect(to, Arc::clone(&trust)).await.expect("a handshake");
            assert!(client.review(review(&count.to_string(), pod())).await.expect("an answer").has_patch());
            sleep(Duration::from_millis(20)).await;
        }
    });
    for (generation, (certificate, key)) in pairs.iter().enumerate() {
        mount(&path, generation + 1, &[("tls.crt", certificate), ("tls.key", key)]);
        sleep(Duration::from_millis(100)).await;
    }
    shaking.await.expect("no handshake and no review is lost");
    served_after(&server, &pairs[29].0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_client_authority_beside_it_a_client_needs_a_certificate() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let (certificate, key) = authority.leaf(1);
    let clients = Authority::new();
    mount(
        folder.path(),
        0,
        &[("tls.crt", &certificate), ("tls.key", &key), ("client-ca.crt", &clients.pem())],
    );
    let server = Server::start_in(folder, authority, &[], None);
    server.ready().await;
    let refused = match Client::connect(server.webhook, Arc::clone(&server.trust)).await {
        // In TLS 1.3 the client learns of it with its first read.
        Ok(mut client) => client.review(review("1", pod())).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "no certificate, no answer");
    let mut roots = RootCertStore::empty();
    roots.add(der(&server.authority.pem())).expect("an authority");
    let mut config = (*client_config(roots)).clone();
    let (own, own_key) = clients.leaf(1);
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(own_key.as_bytes()).expect("PEM");
    let certified =
        rustls::sign::CertifiedKey::from_der(vec![der(&own)], key, config.crypto_provider()).expect("a pair");
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let mut client = Client::connect(server.webhook, Arc::new(config)).await.expect("a handshake");
    assert!(client.review(review("1", pod())).await.expect("an answer").has_patch());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_replaces_is_told_of_and_its_end_makes_the_replica_unready() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let second = time::Duration::seconds(1);
    let (certificate, key) = authority.leaf_within(-second * 60, second * 6);
    mount(folder.path(), 0, &[("tls.crt", &certificate), ("tls.key", &key)]);
    let server = Server::start_in(folder, authority, &[], None);
    server.ready().await;
    let said = |text: &'static str| server.process.wait_for_line(text, LONG);
    assert!(said("tls.crt expires soon, and nobody has replaced it").is_some(), "{}", server.process.dump());
    assert!(
        said("tls.crt has expired; whoever makes it must replace it").is_some(),
        "{}",
        server.process.dump()
    );
    assert_eq!(server.get("/readyz").await, (503, "there is no certificate to serve\n".into()));
    let (next, next_key) = server.authority.leaf(2);
    mount(server.folder.path(), 1, &[("tls.crt", &next), ("tls.key", &next_key)]);
    server.ready().await;
}
