//! Turns the API server's objects into updates: every kind is listed once and then followed.
//!
//! Edge. Knows the API server's lists and watches and how they can fail; does not know what the
//! objects mean. Holds one object at a time.
//!
//! ```text
//!        ┌ streamed list (KEP-3157) ┐ fails: in pages
//! start ─┤                          ├─▶ watch ─▶ ended, silent or broken ─▶ watch from there on
//!        └ pages, item by item ─────┘     └─▶ 410 Gone ─▶ start; a list is applied as a difference
//! ```

pub mod cluster;
pub mod decode;
mod doubts;
pub(super) mod pace;
pub mod progress;
pub mod protobuf;
mod report;
mod scopes;
pub(crate) mod split;
mod stream;
mod trouble;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::core::params::{ListParams, WatchParams};
use shared::clock::Moment;
use shared::clock::{boot_time, unix_ms};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::project::{Kind, Metadata};
use crate::source::update::{Closed, Scope, Sink, Update, send};

use cluster::Cluster;
use decode::{Envelope, Event, Status};
use pace::Pace;
use progress::{Count, Phase, Progress};
use split::Items;
use stream::Stream;
use trouble::{BAD_REQUEST, FORBIDDEN, GONE, INVALID, NOT_FOUND, Trouble, refusal};

pub use scopes::scopes;

/// Follows every scope in `watches` until `stopping`.
pub async fn follow(
    cluster: Arc<Cluster>,
    watches: Vec<(Scope, Arc<Progress>)>,
    options: Options,
    sink: Sink,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let followers = watches.into_iter().map(|(scope, progress)| {
        let follower = Follower {
            cluster: Arc::clone(&cluster),
            options: options.clone(),
            sink: sink.clone(),
            scope,
            progress,
            version: None,
            in_pages: false,
            in_json: false,
            api: 0,
            absences: 0,
            denials: 0,
            hesitations: 0,
            stuck: 0,
            well_since: None,
        };
        follower.run()
    });
    let followers = futures_util::future::join_all(followers);
    tokio::select! {
        () = stopping.cancelled() => {}
        _closed = followers => stopping.cancelled().await,
    }
    Ok(())
}

/// The options that all watches share.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which Namespaces, as a label selector; all if there is none.
    pub namespaces: Option<String>,
    /// Selects Services by label; `None` selects all.
    pub services: Option<String>,
    /// Whether endpoints without hostname are named by their Pods.
    pub pod_names: bool,
    /// The longest time without data, after which the server counts as gone.
    pub silence_max: Duration,
    /// Whether kubedns can run without these kinds if it is not allowed to read them.
    pub optional: bool,
}

/// One list and watch.
struct Follower {
    cluster: Arc<Cluster>,
    options: Options,
    sink: Sink,
    scope: Scope,
    progress: Arc<Progress>,
    /// All events up to this version have been sent. Without it, a full list must come first.
    version: Option<String>,
    /// Whether the next full list is read in pages, because the server does not stream it.
    in_pages: bool,
    /// Whether watches use JSON, because protobuf could not be parsed.
    in_json: bool,
    /// The index of the API version that is used, among those of the kind.
    api: usize,
    /// How often in a row the server did not have the kind in any version.
    absences: u32,
    /// How often in a row the server did not allow it.
    denials: u32,
    /// How often in a row the server refused a request that it had allowed before.
    hesitations: u32,
    /// How often in a row a watch from the same version was refused or silent.
    stuck: u32,
    /// Since when the watch works, if it does.
    well_since: Option<Moment>,
}

impl Follower {
    /// Lists and watches for ever. Returns only if the receiver of updates is closed.
    async fn run(mut self) -> Closed {
        let mut pace = Pace::new();
        loop {
            let trouble = match self.turn().await {
                Ok(()) => continue,
                Err(Trouble::Refused(status)) if status.code == NOT_FOUND && self.is_optional() => {
                    match self.next_api().await {
                        Ok(()) => continue,
                        Err(trouble) => trouble,
                    }
                }
                Err(Trouble::Refused(status)) if status.code == FORBIDDEN && self.hesitates() => {
                    Trouble::Hesitant(status)
                }
                Err(Trouble::Refused(status)) if status.code == FORBIDDEN => {
                    match self.denied(status).await {
                        Ok(trouble) => trouble,
                        Err(Closed) => return Closed,
                    }
                }
                Err(Trouble::Closed) => return Closed,
                Err(trouble) => trouble,
            };
            let now = boot_time();
            let well = self.well_since.take().map_or(Duration::ZERO, |since| now.since(since));
            let pause = match trouble {
                Trouble::Lost(_) => ABSENCE_PAUSE,
                Trouble::Denied(..) => {
                    DENIAL_PAUSE_MAX.min(Duration::from_secs(1 << self.denials.min(10)))
                }
                Trouble::Hesitant(_) => HESITATION_PAUSE,
                Trouble::Request(_) => {
                    pace.pause(well, None, rand::random()).min(CONNECT_PAUSE_MAX)
                }
                _ => pace.pause(well, trouble.retry_after(), rand::random()),
            };
            self.report(&trouble, pause, now);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cluster.life(), if trouble.is_of_the_server() => {}
            }
            if trouble.may_be_the_way() {
                self.cluster.renew(boot_time()).await;
            }
        }
    }

    /// Returns whether the server may lack the kind: it has its own definition (CRD), or was added
    /// in a newer version.
    fn is_optional(&self) -> bool {
        matches!(self.scope.kind, Kind::ServiceImport | Kind::ServiceCidr)
    }

    /// Handles a kind that the server does not allow. Its ranges are not waited for.
    async fn denied(&mut self, status: Status) -> Result<Trouble, Closed> {
        let kind = self.scope.kind;
        if Kind::RANGES.contains(&kind) {
            send(&self.sink, Update::Denied(kind)).await?;
        }
        if !self.options.optional && kind != Kind::ServiceCidr {
            return Ok(Trouble::Refused(status));
        }
        self.denials += 1;
        Ok(Trouble::Denied(kind, status))
    }

    /// Switches to the next version of the API, because this one is not served. After the last one
    /// the kind has no objects. But if there were objects, they are removed only after the server
    /// has answered so several times: a server that starts can do so before it has read its
    /// definitions.
    async fn next_api(&mut self) -> Result<(), Trouble> {
        let kind = self.scope.kind;
        self.version = None;
        self.api += 1;
        if self.api < kind.api_versions().len() {
            return Ok(());
        }
        self.api = 0;
        self.absences += 1;
        let is_known = self.progress.count(Count::List) > 0;
        if is_known && self.absences < ABSENCES_MIN {
            return Err(Trouble::Lost(kind));
        }
        if self.progress.phase() != Phase::Absent {
            send(&self.sink, Update::Listing(self.scope.clone())).await?;
            send(&self.sink, Update::Listed(self.scope.clone())).await?;
        }
        Err(Trouble::Absent(kind))
    }

    /// Watches from the last version, or reads a full list first.
    async fn turn(&mut self) -> Result<(), Trouble> {
        if let Some(before) = self.version.clone() {
            let watched = self.watch().await;
            if self.version.as_ref() != Some(&before) {
                self.stuck = 0;
            }
            return match watched {
                Err(trouble) if self.is_lost(&trouble) => {
                    self.version = None;
                    Err(if trouble.is_gone() { Trouble::Behind } else { trouble })
                }
                other => other,
            };
        }
        self.works(Phase::Listing);
        if self.in_pages {
            return self.list().await;
        }
        match self.watch().await {
            Err(trouble) if self.version.is_none() && trouble.leads_to_pages() => {
                self.turn_to_pages(trouble).await
            }
            other => other,
        }
    }

    /// Falls back to pages after the streamed list failed. If the server does not stream, the pages
    /// are read at once, else after a pause. A version of the API that is not served has no pages
    /// either.
    async fn turn_to_pages(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        let scope = &self.scope;
        match trouble {
            Trouble::Refused(status) if matches!(status.code, BAD_REQUEST | INVALID) => {
                tracing::debug!(watch = %scope, "lists are not streamed");
                self.list().await
            }
            Trouble::Refused(Status { code: NOT_FOUND, .. }) if self.is_optional() => Err(trouble),
            _ => {
                let reason = trouble.reason(scope);
                tracing::info!(watch = %scope, reason, "no streamed list, the next is in pages");
                self.in_pages = true;
                Err(trouble)
            }
        }
    }

    /// Follows changes from `self.version`. Without a version, all existing objects are sent first.
    ///
    /// Returns `Ok` if the server ends the watch in order.
    async fn watch(&mut self) -> Result<(), Trouble> {
        let params = WatchParams {
            label_selector: self.options.labels(self.scope.kind),
            field_selector: self.field_selector(),
            timeout: Some(WATCH_SECS_MIN + (rand::random::<f64>() * WATCH_SECS_SPREAD) as u32),
            bookmarks: true,
            send_initial_events: self.version.is_none(),
        };
        let version = self.version.clone().unwrap_or_default();
        let mut request = self.request().watch(&params, &version).map_err(Trouble::Build)?;
        let accepted = stream::accepted(self.scope.kind, self.in_json);
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accepted));
        let start = boot_time();
        let response = self.ask(request).await?;
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|text| text.to_str().ok());
        let mut stream = Stream::of(content_type.unwrap_or_default());
        let mut body = response.into_body();
        if self.version.is_none() {
            send(&self.sink, Update::Listing(self.scope.clone())).await?;
        } else {
            self.works(Phase::Following);
        }
        let list_wait = LIST_WAIT_MAX.min(self.options.silence_max);
        let mut moved = boot_time();
        loop {
            // Bookmarks keep a watch alive, but are no progress of a list.
            let wait = match self.version {
                None => list_wait.saturating_sub(boot_time().since(moved)),
                Some(_) => Duration::MAX,
            };
            let read = timeout(wait, self.read(&mut body, |bytes| stream.push(bytes))).await;
            if !read.unwrap_or(Err(Trouble::Unfinished(list_wait)))? {
                break;
            }
            while let Some(event) = self.next(&mut stream)? {
                let is_object = !matches!(event, Event::Bookmark { .. });
                self.tell(event).await?;
                if is_object && self.version.is_none() {
                    moved = boot_time();
                }
            }
        }
        let in_order = self.version.is_some() && boot_time().since(start) >= WATCH_MIN;
        if in_order { Ok(()) } else { Err(Trouble::Ended) }
    }

    /// Returns the next event, if it has arrived. If it is malformed, the next watch uses JSON.
    fn next(&mut self, stream: &mut Stream) -> Result<Option<Event>, Trouble> {
        let event = stream.take(self.scope.kind);
        self.in_json |= matches!(event, Err(Trouble::Malformed(_)));
        event
    }

    /// Reads a full list in pages. If the server forgets the continue token, the whole list is
    /// requested in one page. It is parsed item by item in both cases.
    async fn list(&mut self) -> Result<(), Trouble> {
        let mut params = ListParams {
            label_selector: self.options.labels(self.scope.kind),
            field_selector: self.field_selector(),
            limit: Some(PAGE_LEN),
            ..ListParams::default()
        };
        send(&self.sink, Update::Listing(self.scope.clone())).await?;
        loop {
            let metadata = match self.page(&params).await {
                Err(Trouble::Refused(status))
                    if status.code == GONE && params.continue_token.is_some() =>
                {
                    params.continue_token = None;
                    params.limit = None;
                    send(&self.sink, Update::Listing(self.scope.clone())).await?;
                    continue;
                }
                page => page?.metadata,
            };
            if metadata.r#continue.is_empty() {
                self.in_pages = false;
                return self.listed(metadata.resource_version).await;
            }
            params.continue_token = Some(metadata.r#continue);
        }
    }

    async fn page(&mut self, params: &ListParams) -> Result<Envelope, Trouble> {
        let request = self.request().list(params).map_err(Trouble::Build)?;
        let mut body = self.ask(request).await?.into_body();
        let mut items = Items::default();
        while self.read(&mut body, |bytes| items.push(bytes)).await? {
            while let Some(text) = items.take()? {
                let event = decode::item(self.scope.kind, text)?;
                self.tell(event).await?;
            }
        }
        Ok(serde_json::from_slice(items.envelope())?)
    }

    /// Sends the update of `event`, then notes its version.
    async fn tell(&mut self, mut event: Event) -> Result<(), Trouble> {
        if let (Event::Applied(input), true) = (&mut event, self.options.pod_names) {
            input.name_by_pods();
        }
        if let Some(update) = Update::of(&event) {
            send(&self.sink, update).await?;
        }
        let version = match event {
            Event::Applied(input) => {
                self.progress.add(Count::Applied);
                self.note_lag(input.metadata());
                input.metadata().resource_version.clone()
            }
            Event::Deleted(input) => {
                self.progress.add(Count::Deleted);
                input.metadata().resource_version.clone()
            }
            Event::Unreadable { version, .. } => version,
            Event::Bookmark { version, ends_initial } => {
                self.progress.add(Count::Bookmark);
                if ends_initial && self.version.is_none() {
                    self.listed(version).await?;
                    return Ok(());
                }
                Some(version)
            }
            Event::Refused(status) => return Err(Trouble::Refused(status)),
        };
        // In the middle of a list there is no version to continue from.
        if let (Some(place), Some(version)) = (&mut self.version, version) {
            if doubts::is_before(&version, place) {
                return Err(Trouble::WentBack);
            }
            *place = version;
        }
        Ok(())
    }

    /// Notes how late a change arrived. Objects of a list are ignored because they can be old.
    fn note_lag(&self, metadata: &Metadata) {
        if let (Some(_), Some(written_ms)) = (&self.version, metadata.written_ms()) {
            self.progress.lags(Duration::from_millis(unix_ms().saturating_sub(written_ms)));
        }
    }

    async fn listed(&mut self, version: String) -> Result<(), Trouble> {
        send(&self.sink, Update::Listed(self.scope.clone())).await?;
        self.progress.add(Count::List);
        self.absences = 0;
        self.denials = 0;
        tracing::debug!(watch = %self.scope, %version, "listed in full");
        self.version = Some(version);
        self.works(Phase::Following);
        Ok(())
    }

    /// Sends `request` and returns the response. Fails if its status is not a success.
    async fn ask(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, Trouble> {
        let client = self.cluster.client();
        let asked = client.send(request.map(Body::from));
        let response = match timeout(self.options.silence_max, asked).await {
            Ok(response) => response.map_err(Trouble::Request)?,
            Err(_) => return Err(Trouble::Silent(self.options.silence_max)),
        };
        self.progress.heard(boot_time());
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = response.into_body();
        let mut text = Vec::new();
        while text.len() < REFUSAL_LEN_MAX
            && self.read(&mut body, |bytes| text.extend_from_slice(bytes)).await?
        {}
        Err(Trouble::Refused(refusal(code, retry_after, &text)))
    }

    /// Passes the next bytes of `body` to `take`. Returns `false` at its end.
    async fn read(&self, body: &mut Body, mut take: impl FnMut(&[u8])) -> Result<bool, Trouble> {
        let frame = match timeout(self.options.silence_max, body.frame()).await {
            Ok(frame) => frame.transpose().map_err(Trouble::Broken)?,
            Err(_) => return Err(Trouble::Silent(self.options.silence_max)),
        };
        self.progress.heard(boot_time());
        let Some(frame) = frame else { return Ok(false) };
        if let Some(bytes) = frame.data_ref() {
            take(bytes);
        }
        Ok(true)
    }

    /// Returns a request for the collection.
    fn request(&self) -> kube::core::Request {
        kube::core::Request::new(scopes::path(&self.scope, self.api))
    }

    /// A Namespace is not in a namespace: it is selected by name, which RBAC can allow by name.
    fn field_selector(&self) -> Option<String> {
        let Scope { kind, namespace } = &self.scope;
        let name = namespace.as_ref().filter(|_| *kind == Kind::Namespace)?;
        Some(format!("metadata.name={name}"))
    }
}

/// Objects per page, the number that other clients of the API use.
const PAGE_LEN: u32 = 500;
/// If a streamed list sends neither an object nor its end for this long, it is read in pages.
const LIST_WAIT_MAX: Duration = Duration::from_secs(10);
/// If a watch ends in order, but sooner than this, the next one starts after a pause.
const WATCH_MIN: Duration = Duration::from_secs(1);
/// The server ends a watch after this many seconds ..
const WATCH_SECS_MIN: u32 = 240;
/// .. and up to this many more, so that many replicas do not reconnect at once.
const WATCH_SECS_SPREAD: f64 = 60.0;
/// A kind that had objects is removed if the server does not have it this often in a row, ..
const ABSENCES_MIN: u32 = 6;
/// The pause after a 403 for a request that was allowed before.
const HESITATION_PAUSE: Duration = Duration::from_millis(300);
/// The longest pause before another connection: a try costs little while no server listens.
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// .. with this pause in between: three seconds, whatever failed before.
const ABSENCE_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between requests for a kind that kubedns is not allowed to read and can run
/// without: an operator must change a rule of RBAC first.
const DENIAL_PAUSE_MAX: Duration = Duration::from_secs(600);
/// The most bytes of a refusal that are read.
const REFUSAL_LEN_MAX: usize = 64 << 10;
