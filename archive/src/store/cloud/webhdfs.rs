//! WebHDFS: giving a finished file its name.
//!
//! Owns: the request `RENAME` with `renameoptions=NONE`, which the `NameNode` does in one transaction and refuses when
//! the name is taken; without that option, which the driver never sends, it has another meaning. What HDFS promises
//! about durability is in [`super::hdfs`].

use async_trait::async_trait;
use http::{Method, Request, StatusCode};
use opendal::{Buffer, Error, ErrorKind, Operator};

use super::naming::Naming;
use crate::{object_key::ObjectKey, store::Put};

/// The `NameNode`'s side of creation.
pub(super) struct WebHdfsNaming {
    /// Only for its connections.
    operator: Operator,
    endpoint: String,
    /// With `/` at both ends.
    root: String,
    /// `&user.name=..` or `&delegation=..`, or nothing.
    identity: String,
}

enum Answer {
    Done,
    Taken,
    Absent,
}

impl WebHdfsNaming {
    /// `endpoint` is `http(s)://host:port`.
    pub(super) fn new(operator: Operator, endpoint: &str, root: &str, user: Option<&str>, token: Option<&str>) -> Self {
        let identity = match (token, user) {
            (Some(token), _) => format!("&delegation={token}"),
            (None, Some(user)) => format!("&user.name={user}"),
            (None, None) => String::new(),
        };
        let root = format!("{}/", root.trim_end_matches('/'));
        Self { operator, endpoint: endpoint.trim_end_matches('/').to_owned(), root, identity }
    }

    /// One request. Paths need no escaping: prefixes and keys are made of plain characters.
    async fn ask(&self, method: Method, path: &str, operation: &str) -> opendal::Result<Answer> {
        let uri = format!("{}/webhdfs/v1{}{path}?op={operation}{}", self.endpoint, self.root, self.identity);
        let request = Request::builder().method(method).uri(uri).body(Buffer::new());
        let request = request.map_err(|_| Error::new(ErrorKind::ConfigInvalid, "the WebHDFS address is malformed"))?;
        let answer = self.operator.base_context().http_transport().send(request).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Answer::Done);
        }
        let text = answer.into_body().to_bytes();
        let text = String::from_utf8_lossy(&text);
        match status {
            _ if text.contains("FileAlreadyExistsException") => Ok(Answer::Taken),
            _ if text.contains("FileNotFoundException") => Ok(Answer::Absent),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::new(ErrorKind::PermissionDenied, text)),
            _ if status.is_server_error() => Err(Error::new(ErrorKind::Unexpected, text).set_temporary()),
            _ => Err(Error::new(ErrorKind::Unexpected, format!("status: {}: {text}", status.as_u16()))),
        }
    }

    async fn rename(&self, temporary: &str, key: &ObjectKey) -> opendal::Result<Answer> {
        let operation = format!("RENAME&destination={}{key}&renameoptions=NONE", self.root);
        self.ask(Method::PUT, temporary, &operation).await
    }
}

#[async_trait]
impl Naming for WebHdfsNaming {
    async fn name(&self, temporary: &str, key: &ObjectKey) -> opendal::Result<Put> {
        let mut answer = self.rename(temporary, key).await?;
        if matches!(answer, Answer::Absent) {
            // Mostly the object's directory is new. After a lost reply it is the temporary file that is gone: then
            // the object is there, and mine or not, the name is taken.
            let directory = key.as_str().rsplit_once('/').map_or("", |(directory, _)| directory);
            self.ask(Method::PUT, directory, "MKDIRS&permission=755").await?;
            answer = self.rename(temporary, key).await?;
        }
        match answer {
            Answer::Done => Ok(Put::Created),
            Answer::Taken => Ok(Put::Exists),
            Answer::Absent => match self.ask(Method::GET, key.as_str(), "GETFILESTATUS").await? {
                Answer::Done => Ok(Put::Exists),
                _ => Err(Error::new(ErrorKind::Unexpected, "the finished file has gone before it had its name")),
            },
        }
    }
}
