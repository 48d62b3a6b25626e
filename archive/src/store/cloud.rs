//! Objects in a cloud service: the only file that names opendal.
//!
//! Owns: how an object store's requests are made, repeated and bounded, and what their failures mean here.
//! - Creation is conditional (`if_not_exists`), also at the completion of an upload in parts. **After a lost reply the
//!   request is repeated and meets its own object: the answer is then [`Put::Exists`]**, like for anybody else's;
//!   callers compare nonces.
//! - "Not there" is believed only of an object in a bucket that is known to exist: some services answer "not found"
//!   for both.
//! - Listings are sorted, filtered and cut here: services differ in what they promise.
//! - Memory: an upload holds at most four parts of 8 MiB, whatever its size.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use opendal::{
    ErrorKind, Operator,
    layers::{RetryEvent, RetryInterceptor, RetryLayer, TimeoutLayer},
    services,
};

use super::{Listed, Put, Store, Upload, answer, environment::Environment, url::CloudLocation};
use crate::{
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
};

/// Uploads are sent in parts of this size: above the 5 MiB that S3 asks for, and small enough to hold several.
const PART: usize = 8 << 20;
/// Parts of one upload on their way at the same time; one more is collected meanwhile, and the piece at hand is the
/// caller's.
const PARTS_AT_ONCE: usize = 2;
/// S3 takes 10,000 parts; some room for a size hint that was too small.
const PARTS: u64 = 9_000;

/// A place in a cloud service; clones share its connections.
#[derive(Clone)]
pub struct CloudStore(Arc<Shared>);

struct Shared {
    operator: Operator,
    location: CloudLocation,
    /// The bucket has answered a listing: "not found" is about objects from now on.
    bucket_seen: AtomicBool,
    /// A request has succeeded: credentials that cannot be loaded now are a passing trouble.
    has_worked: AtomicBool,
    /// Requests that were made again here.
    repeated: Arc<AtomicU64>,
}

impl CloudStore {
    /// The store at `location`, with what `environment` adds. Asks S3 for the bucket's region when nobody names it.
    pub(super) async fn open(location: CloudLocation, environment: &Environment) -> Result<Self> {
        let refuse = || Error::new(Code::StoreUrl, "opening the archive").on(location.describe());
        let service = location.service;
        let mut settings = location.options.clone();
        (service.complete)(environment, &mut settings)?;
        settings.insert(service.place.to_owned(), location.place.clone());
        settings.insert("root".to_owned(), format!("/{}", location.prefix));
        if service.driver == services::S3_SCHEME && !settings.contains_key("region") {
            let endpoint = settings.get("endpoint").map(String::as_str);
            let region = detect_region(endpoint, &location.place).await;
            settings.insert(
                "region".to_owned(),
                region.ok_or_else(|| {
                    refuse()
                        .with("reason", "the bucket's region is not known")
                        .hint("give ?region=NAME or set AWS_REGION; stores that are not AWS mostly take us-east-1")
                })?,
            );
        }
        // The driver's own words can repeat settings, and settings can be secret: only its kind is shown.
        let operator = Operator::via_iter(service.driver, settings).map_err(|e| {
            refuse().with("reason", e.kind()).hint("an option or a variable has a value that cannot be used")
        })?;
        let (bucket_seen, has_worked) = (AtomicBool::new(false), AtomicBool::new(false));
        let repeated = Arc::default();
        let operator = with_layers(operator, Arc::clone(&repeated));
        Ok(Self(Arc::new(Shared { operator, location, bucket_seen, has_worked, repeated })))
    }
}

impl Shared {
    /// Remembers that a request succeeded, and makes our error of one that did not.
    fn judge<T>(&self, doing: &'static str, key: impl fmt::Display, result: opendal::Result<T>) -> Result<T> {
        match result {
            Ok(value) => {
                self.has_worked.store(true, Ordering::Relaxed);
                Ok(value)
            }
            Err(e) => Err(self.failed(doing, e).on(key)),
        }
    }

    fn failed(&self, doing: &'static str, e: opendal::Error) -> Error {
        let (code, hint) =
            classify(e.kind(), e.is_permanent(), &e.to_string(), self.has_worked.load(Ordering::Relaxed));
        let error = Error::new(code, doing).with("store", self.location.describe());
        let error = if hint.is_empty() { error } else { error.hint(hint) };
        error.because(short(&e))
    }

    /// Turns "not found" into "not there", once the bucket is known to be.
    async fn unless_absent<T>(
        &self,
        doing: &'static str,
        key: &ObjectKey,
        result: opendal::Result<T>,
    ) -> Result<Option<T>> {
        match result {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.check_bucket().await?;
                Ok(None)
            }
            other => self.judge(doing, key, other).map(Some),
        }
    }

    /// One listing of one entry, the first time that it matters.
    async fn check_bucket(&self) -> Result<()> {
        if self.bucket_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let first = async { self.operator.lister_with("/").recursive(true).limit(1).await?.try_next().await };
        self.judge("looking for the bucket", self.location.describe(), first.await)?;
        self.bucket_seen.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The size of an object.
    async fn stat(&self, key: &ObjectKey) -> Result<Option<u64>> {
        let meta = self.operator.stat(key.as_str()).await;
        Ok(self.unless_absent("asking for the object's size", key, meta).await?.map(|m| m.content_length()))
    }
}

/// The layers in the one order that is right. Timeout is inside: it ends one attempt, and Retry outside of it makes
/// the next; the other way round it would end the whole sequence in the middle and leave Retry's state broken.
fn with_layers(operator: Operator, repeated: Arc<AtomicU64>) -> Operator {
    let timeout = TimeoutLayer::new()
        .with_timeout(Duration::from_secs(30))
        // One part on a slow line: 8 MiB at 1 Mbit/s.
        .with_io_timeout(Duration::from_secs(90));
    // About ten seconds altogether: beyond that the caller knows better whether to wait.
    let retry = RetryLayer::new()
        .with_jitter()
        .with_factor(2.0)
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(5)
        .with_notify(Notice(repeated));
    operator.layer(timeout).layer(retry)
}

struct Notice(Arc<AtomicU64>);

impl RetryInterceptor for Notice {
    fn intercept(&self, event: RetryEvent<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            operation = %event.op, attempt = event.attempt, after = ?event.retry_after, cause = %short(event.err),
            "the object store did not answer as it should; asking again"
        );
    }
}

/// Asks for the region of a bucket.
async fn detect_region(endpoint: Option<&str>, bucket: &str) -> Option<String> {
    // For the bare name the driver answers us-east-1 without asking; with the port it asks.
    services::S3::detect_region(endpoint.unwrap_or("https://s3.amazonaws.com:443"), bucket).await
}

/// The driver's error without response headers, which nobody wants to read at night.
fn short(e: &opendal::Error) -> String {
    let source = std::error::Error::source(e).map(|s| format!(": {s}")).unwrap_or_default();
    format!("{}: {}{source}", e.kind(), e.message())
}

/// What a failure means: its code, and a hint where the code's own does not fit (else empty).
fn classify(kind: ErrorKind, permanent: bool, text: &str, has_worked: bool) -> (Code, &'static str) {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match kind {
        _ if says(&["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"]) => {
            (Code::StoreNotFound, "")
        }
        _ if says(&["loading credential", "load signing credential", "reqsign::"]) => {
            let code = if has_worked { Code::StoreUnavailable } else { Code::StoreDenied };
            (code, "no usable credentials were found: set them in the environment, or check the profile or role")
        }
        // A clock that jumped jumps back: whoever archives for a year waits for it.
        _ if says(&["RequestTimeTooSkewed", "Request date header too"]) => {
            (Code::StoreUnavailable, "this machine's clock is wrong: set it")
        }
        ErrorKind::PermissionDenied => (Code::StoreDenied, ""),
        // Services that answer 401, and tokens that have run out.
        _ if says(&["status: 401", "ExpiredToken", "InvalidAccessKeyId", "AuthenticationFailed"]) => {
            (Code::StoreDenied, "")
        }
        _ if says(&["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint"]) => {
            (Code::StoreUrl, "the bucket is in another region: correct ?region= or AWS_REGION")
        }
        // A key's absence is answered before this: what is not found here is the bucket or the whole endpoint.
        ErrorKind::NotFound => (Code::StoreNotFound, ""),
        ErrorKind::ConfigInvalid => (Code::StoreUrl, ""),
        ErrorKind::Unsupported => (Code::StoreNotExclusive, "the service lacks an operation that archives need"),
        _ if says(&["NotImplemented", "status: 501"]) => (
            Code::StoreNotExclusive,
            "the service lacks an operation that archives need, most likely conditional writes",
        ),
        // Whatever else it refuses it will refuse again. Trouble on the way has no status.
        ErrorKind::Unexpected if permanent && says(&["status: 4"]) => (Code::StoreRefused, ""),
        _ => (Code::StoreUnavailable, ""),
    }
}

#[async_trait]
impl Store for CloudStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<Put> {
        match self.0.operator.write_with(key.as_str(), body).if_not_exists(true).await {
            Err(e) if e.kind() == ErrorKind::ConditionNotMatch => Ok(Put::Exists),
            other => self.0.judge("creating the object", key, other).map(|_| Put::Created),
        }
    }

    async fn upload(&self, key: &ObjectKey, size_hint: u64) -> Result<Box<dyn Upload>> {
        let part = size_hint.div_ceil(PARTS).max(PART as u64);
        let writer = self
            .0
            .operator
            .writer_with(key.as_str())
            .if_not_exists(true)
            .chunk(answer::in_memory(key, part)?)
            .concurrent(PARTS_AT_ONCE)
            .await;
        let writer = writer.map_err(|e| self.0.failed("starting an upload", e).on(key))?;
        Ok(Box::new(CloudUpload { store: Arc::clone(&self.0), key: key.clone(), writer: Some(writer), taken: false }))
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
        const DOING: &str = "reading the object";
        // One request: its answer brings the size before the bytes.
        let opened = async {
            let mut stream = self.0.operator.reader(key.as_str()).await?.into_stream(..).await?;
            let size = stream.metadata().await?.content_length();
            Ok((stream, size))
        };
        let Some((mut stream, size)) = self.0.unless_absent(DOING, key, opened.await).await? else { return Ok(None) };
        answer::check_limit(key, size, limit)?;
        let mut body = BytesMut::with_capacity(answer::in_memory(key, size)?);
        while let Some(piece) = self.0.judge(DOING, key, stream.try_next().await)? {
            answer::check_limit(key, (body.len() as u64).saturating_add(piece.len() as u64), size)?;
            piece.for_each(|bytes| body.extend_from_slice(&bytes));
        }
        if body.len() as u64 != size {
            return Err(cut_short(key, size, body.len()));
        }
        Ok(Some(body.freeze()))
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        let length = answer::range_length(key, &range)?;
        if length == 0 {
            let Some(size) = self.0.stat(key).await? else { return Ok(None) };
            return answer::check_end(key, size, &range).map(|()| Some(Bytes::new()));
        }
        let read = self.0.operator.read_with(key.as_str()).range(range.clone()).await;
        match read {
            Ok(piece) if piece.len() as u64 == length => {
                self.0.has_worked.store(true, Ordering::Relaxed);
                return Ok(Some(piece.to_bytes()));
            }
            Err(e) if !matches!(e.kind(), ErrorKind::RangeNotSatisfied | ErrorKind::Unexpected) => {
                return self.0.unless_absent("reading a part of the object", key, Err::<Bytes, _>(e)).await;
            }
            // Services tell in different ways that an object ends too early: its size decides.
            other => {
                let Some(size) = self.0.stat(key).await? else { return Ok(None) };
                answer::check_end(key, size, &range)?;
                let piece = self.0.judge("reading a part of the object", key, other)?;
                Err(cut_short(key, length, piece.len()))
            }
        }
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>> {
        self.0.stat(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<Listed>> {
        const DOING: &str = "listing the archive";
        answer::check_prefix(prefix)?;
        let folder = if prefix.is_empty() { "/" } else { prefix };
        let mut lister = self.0.operator.lister_with(folder).recursive(true);
        // Where it is understood it saves pages; it is never relied on.
        if let Some(after) = after.filter(|_| self.0.operator.info().capability().list_with_start_after) {
            lister = lister.start_after(after.as_str());
        }
        // Nothing is asked of the service yet, so its success says nothing about credentials.
        let mut lister = lister.await.map_err(|e| self.0.failed(DOING, e).on(folder))?;
        let mut found = Vec::new();
        while let Some(entry) = self.0.judge(DOING, folder, lister.try_next().await)? {
            let Some(key) = ObjectKey::parse(entry.path()) else { continue };
            let ours = entry.metadata().mode().is_file() && key.as_str().starts_with(prefix);
            if ours && after.is_none_or(|after| key > *after) {
                found.push(Listed { key, size: entry.metadata().content_length() });
            }
        }
        self.0.bucket_seen.store(true, Ordering::Relaxed);
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        const DOING: &str = "deleting the object";
        let deleted = self.0.operator.delete(key.as_str()).await;
        self.0.unless_absent(DOING, key, deleted).await.map(drop)
    }

    fn describe(&self) -> String {
        self.0.location.describe()
    }

    fn repeated(&self) -> u64 {
        self.0.repeated.load(Ordering::Relaxed)
    }
}

fn cut_short(key: &ObjectKey, expected: u64, got: usize) -> Error {
    Error::new(Code::StoreUnavailable, "reading the object")
        .on(key)
        .with("expected", expected)
        .with("received", got)
        .hint("the answer was cut short on the way: try again")
}

/// Without settings: they can be secret.
impl fmt::Debug for CloudStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CloudStore").field(&self.describe()).finish()
    }
}

struct CloudUpload {
    store: Arc<Shared>,
    key: ObjectKey,
    /// Gone once the upload is finished or given up.
    writer: Option<opendal::Writer>,
    /// The service has said already that the name is taken; some do when an upload begins.
    taken: bool,
}

/// No caller can reach this: the operations that end an upload consume it.
fn ended(key: &ObjectKey) -> Error {
    Error::new(Code::Internal, "using an upload that has ended").on(key)
}

/// Takes back parts that were sent. What cannot be taken back costs money until the bucket's own rule for incomplete
/// uploads removes it, and is never visible.
async fn give_up(mut writer: opendal::Writer) -> opendal::Result<()> {
    match writer.abort().await {
        // There were no parts yet, or the service keeps none.
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::NotFound) => Ok(()),
        other => other,
    }
}

async fn give_up_or_say(key: ObjectKey, writer: opendal::Writer) {
    if let Err(e) = give_up(writer).await {
        tracing::warn!(
            %key, cause = %short(&e),
            "parts of an upload that was given up stay in the bucket; a lifecycle rule for incomplete uploads removes them"
        );
    }
}

#[async_trait]
impl Upload for CloudUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        if self.taken {
            return Ok(());
        }
        match self.writer.as_mut().ok_or_else(|| ended(&self.key))?.write(piece).await {
            Err(e) if e.kind() == ErrorKind::ConditionNotMatch => {
                self.taken = true;
                Ok(())
            }
            // It may only have been collected: success proves nothing.
            other => other.map_err(|e| self.store.failed("sending a part of the object", e).on(&self.key)),
        }
    }

    async fn finish(mut self: Box<Self>) -> Result<Put> {
        const DOING: &str = "completing the object";
        let mut writer = self.writer.take().ok_or_else(|| ended(&self.key))?;
        if self.taken {
            give_up_or_say(self.key.clone(), writer).await;
            return Ok(Put::Exists);
        }
        let result = match writer.close().await {
            Ok(_) => return Ok(Put::Created),
            Err(e) if e.kind() == ErrorKind::ConditionNotMatch => Ok(Put::Exists),
            // The service does not know the upload any more: a first completion, whose reply was lost, ended it.
            Err(e) if e.kind() == ErrorKind::NotFound => match self.store.stat(&self.key).await {
                Ok(Some(_)) => return Ok(Put::Exists),
                Ok(None) => Err(Error::new(Code::StoreUnavailable, DOING)
                    .on(&self.key)
                    .because(short(&e))
                    .hint("the service has dropped the upload's parts: it has to be started again")),
                Err(error) => Err(error),
            },
            other => self.store.judge(DOING, &self.key, other).map(|_| Put::Created),
        };
        give_up_or_say(self.key.clone(), writer).await;
        result
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        give_up(writer).await.map_err(|e| self.store.failed("giving up an upload", e).on(&self.key))
    }
}

impl Drop for CloudUpload {
    fn drop(&mut self) {
        if let (Some(writer), Ok(runtime)) = (self.writer.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(give_up_or_say(self.key.clone(), writer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_get_the_code_that_a_person_can_act_on() {
        use ErrorKind as K;
        let cases = [
            (K::ConfigInvalid, "S3Error { code: \"NoSuchBucket\" }", true, Code::StoreNotFound),
            (K::NotFound, "AzblobError { code: \"ContainerNotFound\" }", true, Code::StoreNotFound),
            (K::NotFound, "Not Found", true, Code::StoreNotFound),
            (K::PermissionDenied, "AccessDenied", true, Code::StoreDenied),
            (K::Unexpected, "response: Parts { status: 401, version", true, Code::StoreDenied),
            (K::Unexpected, "ExpiredToken", true, Code::StoreDenied),
            (K::Unexpected, "loading credential to sign http request", false, Code::StoreDenied),
            (K::Unexpected, "loading credential to sign http request", true, Code::StoreUnavailable),
            (K::Unexpected, "signing http request: failed to load signing credential", false, Code::StoreDenied),
            (K::Unexpected, "response: Parts { status: 400, InvalidArgument", true, Code::StoreRefused),
            (K::Unexpected, "response: Parts { status: 501, NotImplemented", true, Code::StoreNotExclusive),
            (K::PermissionDenied, "status: 403 RequestTimeTooSkewed", true, Code::StoreUnavailable),
            (K::Unexpected, "connection refused", true, Code::StoreUnavailable),
            (K::RateLimited, "SlowDown", true, Code::StoreUnavailable),
            (K::Conflict, "ConditionalRequestConflict", true, Code::StoreUnavailable),
            (K::Unexpected, "PermanentRedirect", true, Code::StoreUrl),
        ];
        for (kind, text, has_worked, code) in cases {
            assert_eq!(classify(kind, true, text, has_worked).0, code, "{kind}: {text}");
        }
        let tried_often = classify(K::Unexpected, false, "response: Parts { status: 408", true);
        assert_eq!(tried_often.0, Code::StoreUnavailable, "what the driver calls temporary stays so");
    }
}
