//! Reading a cluster for the commands: whole lists, page by page, and the difference between "there is none" and "it could not be
//! learned".

use std::fmt;
use std::fmt::Debug;
use std::time::Duration;

use kube::api::ListParams;
use kube::core::Request;
use kube::{Api, Client};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::follow::error_text;

/// Objects asked for at a time, as kubectl does. At 10 KiB for a Pod a page is 5 MiB.
const PAGE: u32 = 500;

/// How long one request may take; kubectl's servers cut lists off after a minute.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Why something could not be read.
#[derive(Debug)]
pub struct ReadError {
    what: String,
    cause: String,
    /// The API server's status code, if it was reached.
    pub code: Option<u16>,
}

impl ReadError {
    fn new(what: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let (what, cause) = (what.to_owned(), status.message.clone());
                Self { what, cause, code: Some(status.code) }
            }
            other => Self { what: what.to_owned(), cause: error_text(other), code: None },
        }
    }

    fn timed_out(what: &str) -> Self {
        let cause = format!("no answer within {} s", REQUEST_TIMEOUT.as_secs());
        Self { what: what.to_owned(), cause, code: None }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FORBIDDEN: u16 = 403;
        const UNAUTHORIZED: u16 = 401;
        let help = match self.code {
            Some(FORBIDDEN) => "; ask for that permission, or use another context",
            Some(UNAUTHORIZED) => "; sign in again, or use another context",
            Some(_) => "",
            None => "; check the kubeconfig and that the API server is reachable",
        };
        write!(f, "cannot read {}: {}{help}", self.what, self.cause)
    }
}

impl std::error::Error for ReadError {}

/// Waits for an answer, not for ever.
pub async fn ask<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, ReadError> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| ReadError::new(what, &error)),
        Err(_) => Err(ReadError::timed_out(what)),
    }
}

/// One object; None if there is none by that name, or the API does not exist here.
pub async fn get<K: Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    what: &str,
    name: &str,
) -> Result<Option<K>, ReadError> {
    ask(what, api.get_opt(name)).await
}

/// All objects that the parameters select; none where the API does not exist.
pub async fn list<K: Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    what: &str,
    selected: &ListParams,
) -> Result<Vec<K>, ReadError> {
    const NOT_FOUND: u16 = 404;
    let mut all = Vec::new();
    let mut params = selected.clone().limit(PAGE);
    loop {
        let page = match ask(what, api.list(&params)).await {
            Ok(page) => page,
            Err(error) if error.code == Some(NOT_FOUND) => return Ok(all),
            Err(error) => return Err(error),
        };
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(default, rename = "continue")]
    token: String,
}

/// Hands every object below `path` to `each` as the API server wrote it, page by page, so that a cluster of a hundred thousand Pods
/// needs the memory of five hundred.
pub async fn each_raw(
    client: &Client,
    what: &str,
    path: &str,
    mut each: impl FnMut(&str),
) -> Result<(), ReadError> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let request = Request::new(path).list(&params).map_err(|error| ReadError {
            what: what.to_owned(),
            cause: error.to_string(),
            code: None,
        })?;
        let text = ask(what, client.request_text(request)).await?;
        let page: Page<'_> = serde_json::from_str(&text).map_err(|error| ReadError {
            what: what.to_owned(),
            cause: format!("the API server's list makes no sense: {error}"),
            code: None,
        })?;
        page.items.iter().for_each(|item| each(item.get()));
        if page.metadata.token.is_empty() {
            return Ok(());
        }
        params = params.continue_token(&page.metadata.token);
    }
}
