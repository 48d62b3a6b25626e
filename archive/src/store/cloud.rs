//! Objects in a service that opendal reaches: only this file and those below it name opendal.
//!
//! Owns: how an object store's requests are made, repeated and bounded, and what their failures mean here.
//! - Creation is conditional (`if_not_exists`), also at the completion of an upload in parts. **After a lost reply the
//!   request is repeated and meets its own object: the answer is then [`Put::Exists`]**, like for anybody else's;
//!   callers compare nonces.
//! - Where the service has no conditional creation, or shows half-written objects, the object is written under a
//!   temporary name and gets its own in one step that fails when it is taken (`naming`).
//! - "Not there" is believed only of an object in a bucket that is known to exist: some services answer "not found"
//!   for both.
//! - Listings are sorted, filtered and cut here: services differ in what they promise.

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

use super::{
    Listed, Put, Store, Upload, answer,
    environment::Environment,
    services::{Creation, Settings},
    url::CloudLocation,
};
use crate::{
    clock::Clock,
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
};

#[cfg(feature = "hdfs")]
mod hdfs;
mod naming;
#[cfg(feature = "sftp")]
mod sftp;
mod upload;
mod walk;
#[cfg(feature = "webhdfs")]
mod webhdfs;

use naming::Naming;

/// A few requests, and perhaps a new connection.
const NAMING: Duration = Duration::from_secs(60);

/// A place in a cloud service; clones share its connections.
#[derive(Clone)]
pub struct CloudStore(Arc<Shared>);

struct Shared {
    operator: Operator,
    location: CloudLocation,
    /// `None` where the service itself creates exclusively.
    naming: Option<Box<dyn Naming>>,
    clock: Arc<dyn Clock>,
    /// What crashed writers left behind was looked for.
    tidied: AtomicBool,
    /// The bucket has answered a listing: "not found" is about objects from now on.
    bucket_seen: AtomicBool,
    /// A request has succeeded: credentials that cannot be loaded now are a passing trouble.
    has_worked: AtomicBool,
    /// Requests that were made again here.
    repeated: Arc<AtomicU64>,
}

impl CloudStore {
    /// The store at `location`, with what `environment` adds. Asks S3 for the bucket's region when nobody names it.
    pub(super) async fn open(
        location: CloudLocation,
        environment: &Environment,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let refuse = || Error::new(Code::StoreUrl, "opening the archive").on(location.describe());
        let service = location.service;
        let mut settings = location.options.clone();
        settings.insert(service.place.setting().to_owned(), location.place.clone());
        (service.complete)(environment, &mut settings)?;
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
        let unusable = |e: opendal::Error| {
            refuse().with("reason", e.kind()).hint("an option or a variable has a value that cannot be used")
        };
        let operator = operator_of(service.driver, &settings).map_err(unusable)?;
        let naming = match service.creation {
            Creation::Conditional => None,
            Creation::Named => Some(naming_of(service.driver, &operator, &settings).map_err(unusable)?),
        };
        let repeated = Arc::default();
        Ok(Self(Arc::new(Shared {
            operator: with_layers(operator, Arc::clone(&repeated)),
            location,
            naming,
            clock,
            tidied: AtomicBool::new(false),
            bucket_seen: AtomicBool::new(false),
            has_worked: AtomicBool::new(false),
            repeated,
        })))
    }
}

/// The driver with its settings.
fn operator_of(driver: &str, settings: &Settings) -> opendal::Result<Operator> {
    #[cfg(feature = "hdfs")]
    if driver == "hdfs-native" {
        let get = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
        return hdfs::operator(get("name_node"), get("root"));
    }
    Operator::via_iter(driver, settings.clone())
}

/// The last step of creation for a service that needs one.
fn naming_of(driver: &str, operator: &Operator, settings: &Settings) -> opendal::Result<Box<dyn Naming>> {
    #[cfg_attr(
        not(any(feature = "hdfs", feature = "webhdfs", feature = "sftp")),
        expect(unused_variables, reason = "no service that needs them is built in")
    )]
    let get = |name: &str| settings.get(name).map(String::as_str);
    match driver {
        #[cfg(feature = "hdfs")]
        "hdfs-native" => {
            Ok(Box::new(hdfs::HdfsNaming::new(get("name_node").unwrap_or_default(), get("root").unwrap_or_default())?))
        }
        #[cfg(feature = "webhdfs")]
        "webhdfs" => Ok(Box::new(webhdfs::WebHdfsNaming::new(
            operator.clone(),
            get("endpoint").unwrap_or_default(),
            get("root").unwrap_or_default(),
            get("user_name"),
            get("delegation"),
        ))),
        #[cfg(feature = "sftp")]
        "sftp" => Ok(Box::new(sftp::SftpNaming::new(
            get("endpoint").unwrap_or_default(),
            get("root").unwrap_or_default(),
            get("user"),
            get("key"),
            get("known_hosts_strategy"),
        ))),
        _ => Err(opendal::Error::new(ErrorKind::Unsupported, "the service is not built in")),
    }
}

impl Shared {
    /// Names what was written under `temporary`, `sent` bytes, and removes the temporary name.
    async fn name(&self, naming: &dyn Naming, temporary: &str, key: &ObjectKey, sent: u64) -> Result<Put> {
        let named = match naming::check_whole(&self.operator, temporary, key, sent).await {
            Ok(()) => match tokio::time::timeout(NAMING, naming.name(temporary, key)).await {
                Ok(named) => self.judge("naming the new object", key, named),
                Err(_) => Err(Error::new(Code::StoreUnavailable, "naming the new object")
                    .on(key)
                    .with("store", self.location.describe())
                    .hint("the server did not answer: try again")),
            },
            Err(error) => Err(error),
        };
        // Renamed it is gone already; linked, or refused, it is not.
        naming::remove(&self.operator, temporary).await;
        if named.is_ok() && !self.tidied.swap(true, Ordering::Relaxed) {
            naming::remove_leftovers(&self.operator, self.clock.now()).await;
        }
        named
    }

    /// Creates an object by writing it under a temporary name first.
    async fn put_named(&self, naming: &dyn Naming, key: &ObjectKey, body: Bytes) -> Result<Put> {
        let (temporary, sent) = (naming::temporary()?, body.len() as u64);
        let written = self.operator.write(&temporary, body).await;
        if let Err(error) = self.written("creating the object", key, written) {
            naming::remove(&self.operator, &temporary).await;
            return Err(error);
        }
        self.name(naming, &temporary, key, sent).await
    }

    /// As [`Shared::judge`], where a temporary file was written: what is not there then is a directory.
    fn written<T>(&self, doing: &'static str, key: &ObjectKey, result: opendal::Result<T>) -> Result<T> {
        match result {
            Err(e) if e.kind() == ErrorKind::NotFound => Err(Error::new(Code::StoreDenied, doing)
                .on(key)
                .with("store", self.location.describe())
                .because(short(&e))
                .hint("the archive's directory cannot be made: check who owns the one above it")),
            other => self.judge(doing, key, other),
        }
    }

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
        let text = format!("{e} {}", sources(&e));
        let (code, hint) = classify(e.kind(), e.is_permanent(), &text, self.has_worked.load(Ordering::Relaxed));
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
        // Where there are directories only, a recursive listing would read them all to find one file.
        let recursive = self.naming.is_none();
        let first = async { self.operator.lister_with("/").recursive(recursive).limit(1).await?.try_next().await };
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
    format!("{}: {}{}", e.kind(), e.message().lines().next().unwrap_or_default(), sources(e))
}

/// What is behind an error, each with a colon before it, if it says more than the one before.
fn sources(e: &opendal::Error) -> String {
    let mut said = String::new();
    let mut next = std::error::Error::source(e);
    while let Some(source) = next {
        let text = source.to_string();
        // Some servers send their stack with it.
        let text = text.trim().lines().next().unwrap_or_default();
        if !said.contains(text) {
            said = format!("{said}: {text}");
        }
        next = source.source();
    }
    said
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
        _ if says(&["local ssh command could not be executed"])
            || (says(&["ssh error"]) && says(&["No such file"])) =>
        {
            (Code::StoreDenied, "sftp: needs the program ssh on this machine (Debian: apt-get install openssh-client)")
        }
        _ if says(&["Host key verification failed", "host key is known", "HOST IDENTIFICATION HAS CHANGED"]) => (
            Code::StoreDenied,
            "the server's host key is not known or has changed: compare it, then ssh to it once, or give ?known_hosts_strategy=add",
        ),
        _ if says(&["Permission denied (publickey", "Too many authentication failures"]) => (
            Code::StoreDenied,
            "`ssh USER@HOST` must get in without a question: give ?key=, or set it in ~/.ssh/config",
        ),
        ErrorKind::PermissionDenied => (Code::StoreDenied, ""),
        _ if says(&["AccessControlException"]) => (Code::StoreDenied, ""),
        _ if says(&["DSQuotaExceededException", "NSQuotaExceededException"]) => {
            (Code::DiskFull, "the directory's quota in HDFS is used up")
        }
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
        if let Some(naming) = &self.0.naming {
            return self.0.put_named(&**naming, key, body).await;
        }
        match self.0.operator.write_with(key.as_str(), body).if_not_exists(true).await {
            Err(e) if e.kind() == ErrorKind::ConditionNotMatch => Ok(Put::Exists),
            other => self.0.judge("creating the object", key, other).map(|_| Put::Created),
        }
    }

    async fn upload(&self, key: &ObjectKey, size_hint: u64) -> Result<Box<dyn Upload>> {
        upload::start(&self.0, key, size_hint).await
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
        const DOING: &str = "reading the object";
        let whole = async || self.0.operator.reader(key.as_str()).await?.into_stream(..).await;
        let opened = async {
            // Where a file is read, nothing comes with its bytes.
            if self.0.naming.is_some() {
                let size = self.0.operator.stat(key.as_str()).await?.content_length();
                return Ok((whole().await?, size));
            }
            // One request: its answer brings the size before the bytes.
            let mut stream = whole().await?;
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
            Err(e) if !may_be_too_short(e.kind(), self.0.naming.is_some()) => {
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
        if self.0.naming.is_some() {
            let files = walk::files_below(&self.0.operator, folder).await;
            let files = self.0.judge(DOING, folder, files)?;
            self.0.bucket_seen.store(true, Ordering::Relaxed);
            return Ok(ours(files, prefix, after));
        }
        let mut lister = self.0.operator.lister_with(folder).recursive(true);
        // Where it is understood it saves pages; it is never relied on.
        if let Some(after) = after.filter(|_| self.0.operator.info().capability().list_with_start_after) {
            lister = lister.start_after(after.as_str());
        }
        // Nothing is asked of the service yet, so its success says nothing about credentials.
        let mut lister = lister.await.map_err(|e| self.0.failed(DOING, e).on(folder))?;
        let mut found = Vec::new();
        while let Some(entry) = self.0.judge(DOING, folder, lister.try_next().await)? {
            if entry.metadata().mode().is_file() {
                found.push((entry.path().to_owned(), entry.metadata().content_length()));
            }
        }
        self.0.bucket_seen.store(true, Ordering::Relaxed);
        Ok(ours(found, prefix, after))
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

/// Whether a failed read of a part can mean that the object ends before it. WebHDFS forbids reading there.
fn may_be_too_short(kind: ErrorKind, named: bool) -> bool {
    matches!(kind, ErrorKind::RangeNotSatisfied | ErrorKind::Unexpected)
        || (named && kind == ErrorKind::PermissionDenied)
}

/// What of a listing is part of an archive, in order.
fn ours(files: Vec<(String, u64)>, prefix: &str, after: Option<&ObjectKey>) -> Vec<Listed> {
    let listed = files.into_iter().filter_map(|(path, size)| Some(Listed { key: ObjectKey::parse(&path)?, size }));
    let mut found: Vec<_> =
        listed.filter(|l| l.key.as_str().starts_with(prefix) && after.is_none_or(|after| l.key > *after)).collect();
    found.sort_unstable();
    found.dedup();
    found
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
            (
                K::Unexpected,
                "ssh error : failed to connect: No ED25519 host key is known for h",
                true,
                Code::StoreDenied,
            ),
            (K::Unexpected, "ssh error : me@h: Permission denied (publickey).", true, Code::StoreDenied),
            (K::Unexpected, "ssh error : the local ssh command could not be executed", true, Code::StoreDenied),
            (K::Unexpected, "ssh error : connect to host h port 22: Connection refused", true, Code::StoreUnavailable),
            (K::Unexpected, "RPC error: org.apache.hadoop.security.AccessControlException x", true, Code::StoreDenied),
        ];
        for (kind, text, has_worked, code) in cases {
            assert_eq!(classify(kind, true, text, has_worked).0, code, "{kind}: {text}");
        }
        let tried_often = classify(K::Unexpected, false, "response: Parts { status: 408", true);
        assert_eq!(tried_often.0, Code::StoreUnavailable, "what the driver calls temporary stays so");
    }
}
