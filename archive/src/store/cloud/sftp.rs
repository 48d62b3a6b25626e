//! SFTP: giving a finished file its name.
//!
//! Owns: the connection for it, and the order: fsync (`fsync@openssh.com`), hard link (`hardlink@openssh.com`), which
//! fails when the name is taken, fsync again, because on the usual journalling file systems that makes the new link
//! durable with the file, too. Plain SFTP has neither: its rename may replace, and its close promises nothing.
//! A server without hard links is refused; one without fsync is named, once.

use std::{
    mem::discriminant,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use opendal::{Error, ErrorKind};
use openssh::{KnownHosts, SessionBuilder};
use openssh_sftp_client::{Error as SftpError, Sftp, SftpOptions, error::SftpErrorKind};
use tokio::sync::Mutex;

use super::naming::Naming;
use crate::{object_key::ObjectKey, store::Put};

/// The server's side of creation.
pub(super) struct SftpNaming {
    endpoint: String,
    session: SessionBuilder,
    root: PathBuf,
    /// Opened when it is first needed, and again after it broke.
    connection: Mutex<Option<Arc<Sftp>>>,
    lacks_fsync: AtomicBool,
}

impl SftpNaming {
    /// `endpoint` is `ssh://[user@]host[:port]`; `strategy` is one of the driver's.
    pub(super) fn new(
        endpoint: &str,
        root: &str,
        user: Option<&str>,
        key: Option<&str>,
        strategy: Option<&str>,
    ) -> Self {
        let mut session = SessionBuilder::default();
        if let Some(user) = user {
            session.user(user.to_owned());
        }
        if let Some(key) = key {
            session.keyfile(key);
        }
        session.known_hosts_check(match strategy {
            Some("accept") => KnownHosts::Accept,
            Some("add") => KnownHosts::Add,
            _ => KnownHosts::Strict,
        });
        Self {
            endpoint: endpoint.to_owned(),
            session,
            root: PathBuf::from(root),
            connection: Mutex::new(None),
            lacks_fsync: AtomicBool::new(false),
        }
    }

    async fn connect(&self) -> opendal::Result<Arc<Sftp>> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_ref() {
            return Ok(Arc::clone(open));
        }
        let session = self.session.connect(&self.endpoint).await;
        let session = session.map_err(|e| Error::new(ErrorKind::Unexpected, "ssh error").set_source(e))?;
        let sftp = Sftp::from_session(session, SftpOptions::default()).await.map_err(error)?;
        if !sftp.support_hardlink() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the SFTP server has no hard links (hardlink@openssh.com), without which no object can be created exclusively",
            ));
        }
        if !sftp.support_fsync() && !self.lacks_fsync.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                server = self.endpoint,
                "the SFTP server has no fsync (fsync@openssh.com): what it has acknowledged may be lost when its machine fails"
            );
        }
        let sftp = Arc::new(sftp);
        *connection = Some(Arc::clone(&sftp));
        Ok(sftp)
    }

    /// The next use connects again, unless somebody has done so meanwhile.
    async fn forget(&self, broken: &Arc<Sftp>) {
        let mut connection = self.connection.lock().await;
        if connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, broken)) {
            *connection = None;
        }
    }

    async fn link(&self, sftp: &Sftp, temporary: &str, key: &ObjectKey) -> Result<Put, SftpError> {
        let (from, to) = (self.root.join(temporary), self.root.join(key.as_str()));
        let mut file = match sftp.options().write(true).open(&from).await {
            // After a lost reply: it had its name already, and was removed.
            Err(e) if is(&e, SftpErrorKind::NoSuchFile) && exists(sftp, &to).await? => return Ok(Put::Exists),
            other => other?,
        };
        if sftp.support_fsync() {
            file.sync_all().await?;
        }
        let mut linked = sftp.fs().hard_link(&from, &to).await;
        if linked.as_ref().is_err_and(|e| is(e, SftpErrorKind::NoSuchFile)) {
            self.make_directories(sftp, key).await?;
            linked = sftp.fs().hard_link(&from, &to).await;
        }
        let put = match linked {
            Ok(()) => Put::Created,
            // The protocol has no number for "is there already".
            Err(e) if is(&e, SftpErrorKind::Failure) && exists(sftp, &to).await? => Put::Exists,
            Err(e) => return Err(e),
        };
        if sftp.support_fsync() {
            file.sync_all().await?;
        }
        file.close().await?;
        Ok(put)
    }

    async fn make_directories(&self, sftp: &Sftp, key: &ObjectKey) -> Result<(), SftpError> {
        let parts: Vec<_> = key.as_str().split('/').collect();
        let mut directory = self.root.clone();
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            directory.push(part);
            match sftp.fs().create_dir(&directory).await {
                // Mostly because it is there: otherwise the link says so.
                Err(e) if is(&e, SftpErrorKind::Failure) => {}
                other => other?,
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Naming for SftpNaming {
    async fn name(&self, temporary: &str, key: &ObjectKey) -> opendal::Result<Put> {
        let sftp = self.connect().await?;
        match self.link(&sftp, temporary, key).await {
            // The server has answered; asking again would bring the same.
            Err(e @ SftpError::SftpError(..)) => Err(error(e)),
            Err(e) => {
                tracing::info!(server = self.endpoint, cause = %e, "the SSH connection broke; connecting again");
                self.forget(&sftp).await;
                let sftp = self.connect().await?;
                self.link(&sftp, temporary, key).await.map_err(error)
            }
            Ok(put) => Ok(put),
        }
    }
}

async fn exists(sftp: &Sftp, path: &Path) -> Result<bool, SftpError> {
    match sftp.fs().metadata(path).await {
        Ok(_) => Ok(true),
        Err(e) if is(&e, SftpErrorKind::NoSuchFile) => Ok(false),
        Err(e) => Err(e),
    }
}

fn is(e: &SftpError, kind: SftpErrorKind) -> bool {
    matches!(e, SftpError::SftpError(found, _) if discriminant(found) == discriminant(&kind))
}

fn error(e: SftpError) -> Error {
    let kind = match &e {
        SftpError::SftpError(SftpErrorKind::PermDenied, _) => ErrorKind::PermissionDenied,
        SftpError::SftpError(SftpErrorKind::OpUnsupported, _) | SftpError::UnsupportedExtension(_) => {
            ErrorKind::Unsupported
        }
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, "sftp error").set_source(e)
}
