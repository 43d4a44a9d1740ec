//! The calls, each one change or one look at the file.

use std::sync::Arc;

use http::Extensions;
use prost::Message as _;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, metadata::MetadataMap};
use weir_router_core::directory::{
    audit::Actor,
    change::{Change, NewKey},
    file::File,
};
use weir_router_store::directory::{Changed, DirectoryError, DirectoryFile, new_secret};
use weir_wire::{
    ids::{KeyName, TenantId},
    timestamp::Timestamp,
};

use super::{
    convert,
    proto::{
        CreateTenantRequest, GetTenantRequest, ListTenantsRequest, ListTenantsResponse,
        MakeKeyRequest, MakeKeyResponse, ResumeTenantRequest, RevokeKeyRequest, RevokeKeyResponse,
        RotateKeyRequest, RotateKeyResponse, SuspendTenantRequest, Tenant, UpdateTenantRequest,
        tenants_server::Tenants,
    },
};

/// How many tenants a page has where nothing is said, and at the most.
const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 1_000;

/// From here on a page is full; clients take 4 MiB where nobody says otherwise.
const PAGE_BYTES: usize = 1 << 20;

pub type ActorOf = dyn Fn(&MetadataMap, &Extensions) -> Option<Actor> + Send + Sync;

/// The service as tonic wants it.
pub struct TenantsService {
    pub(super) directory: Arc<DirectoryFile>,
    pub(super) actor: Arc<ActorOf>,
    pub(super) readers: Semaphore,
    pub(super) writer: Semaphore,
}

/// The wall clock.
fn now() -> Result<Timestamp, Status> {
    u64::try_from(weir_process::now_ms())
        .ok()
        .and_then(Timestamp::from_ms)
        .ok_or_else(|| Status::internal("the machine's clock is before 1970 or after 9999"))
}

type Answer<T> = Result<Response<T>, Status>;

impl TenantsService {
    fn actor<T>(&self, request: &Request<T>) -> Result<Actor, Status> {
        (self.actor)(request.metadata(), request.extensions())
            .ok_or_else(|| Status::unauthenticated("the credential names nobody"))
    }

    /// Off the threads that serve, and no more at once than there are permits.
    async fn work<T: Send + 'static>(
        &self,
        permits: &Semaphore,
        work: impl FnOnce(&DirectoryFile) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, Status> {
        let _permit = permits.acquire().await;
        let directory = Arc::clone(&self.directory);
        tokio::task::spawn_blocking(move || work(&directory))
            .await
            .map_err(|_| Status::internal("the directory's file was not worked on to the end"))?
            .map_err(convert::status)
    }

    async fn read(&self) -> Result<File, Status> {
        self.work(&self.readers, DirectoryFile::read).await
    }

    /// Makes a change. It goes on where the caller leaves meanwhile.
    async fn change(
        &self,
        actor: Actor,
        now: Timestamp,
        change: Change,
    ) -> Result<Changed, Status> {
        let change = move |directory: &DirectoryFile| directory.change(change, &actor, now);
        self.work(&self.writer, change).await
    }

    /// Makes a change of a tenant as a whole, and gives the tenant.
    async fn change_tenant(&self, actor: Actor, change: Change) -> Answer<Tenant> {
        let now = now()?;
        let Changed { done, file } = self.change(actor, now, change).await?;
        convert::tenant_of(&file, &done.tenant, now).map(Response::new)
    }

    /// Makes a key; gives the file that has it, whose it is and its name.
    async fn change_key(
        &self,
        actor: Actor,
        now: Timestamp,
        change: Change,
    ) -> Result<Made, Status> {
        let Changed { done, file } = self.change(actor, now, change).await?;
        let (Some(key), Some(secret)) = (done.key, done.secret) else {
            return Err(Status::internal("no key was made"));
        };
        Ok(Made {
            key: convert::key_of(&file, &done.tenant, &key, now)?,
            secret: secret.reveal().to_owned(),
            file,
            tenant: done.tenant,
        })
    }
}

/// A key that was made.
struct Made {
    key: super::proto::Key,
    secret: String,
    file: File,
    tenant: TenantId,
}

fn new_key(name: Option<KeyName>, expires_at: Option<Timestamp>) -> Result<NewKey, Status> {
    Ok(NewKey {
        name,
        expires_at,
        secret: new_secret().map_err(convert::status)?,
    })
}

#[tonic::async_trait]
impl Tenants for TenantsService {
    async fn create_tenant(&self, request: Request<CreateTenantRequest>) -> Answer<Tenant> {
        let actor = self.actor(&request)?;
        let request = request.into_inner();
        let tenant = convert::tenant(&request.tenant)?;
        let change = Change::AddTenant {
            tenant: tenant.clone(),
            plan: convert::plan(&request.plan, self.directory.plans())?,
            limits: request.limits.map(convert::limits).transpose()?,
        };
        let now = now()?;
        let Changed { done, file } = self.change(actor, now, change).await?;
        if !done.is_change() {
            let message = format!("tenant: {tenant} is there already, with that plan");
            return Err(Status::already_exists(message));
        }
        convert::tenant_of(&file, &tenant, now).map(Response::new)
    }

    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Answer<Tenant> {
        let tenant = convert::tenant(&request.get_ref().tenant)?;
        convert::tenant_of(&self.read().await?, &tenant, now()?).map(Response::new)
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Answer<ListTenantsResponse> {
        let ListTenantsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let page_size = match usize::try_from(page_size).unwrap_or(usize::MAX) {
            0 => PAGE_SIZE,
            size if size <= PAGE_SIZE_MAX => size,
            size => {
                return Err(Status::invalid_argument(format!(
                    "page_size: must be at most {PAGE_SIZE_MAX}, found {size}"
                )));
            }
        };
        let after = convert::optional(&page_token, "page_token", TenantId::new)?;
        let file = self.read().await?;
        let mut tenants: Vec<_> = file
            .tenants
            .iter()
            .filter(|tenant| after.as_ref().is_none_or(|after| tenant.id > *after))
            .collect();
        tenants.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let (now, found) = (now()?, tenants.len());
        let (mut page, mut bytes) = (Vec::new(), 0_usize);
        for tenant in tenants.into_iter().take(page_size) {
            let tenant = convert::tenant_shown(tenant, file.version, now);
            bytes = bytes.saturating_add(tenant.encoded_len());
            if bytes > PAGE_BYTES && !page.is_empty() {
                break;
            }
            page.push(tenant);
        }
        let next = page.last().filter(|_| page.len() < found);
        Ok(Response::new(ListTenantsResponse {
            next_page_token: next.map(|last| last.tenant.clone()).unwrap_or_default(),
            tenants: page,
        }))
    }

    async fn update_tenant(&self, request: Request<UpdateTenantRequest>) -> Answer<Tenant> {
        let actor = self.actor(&request)?;
        let change = convert::update(request.into_inner(), self.directory.plans())?;
        self.change_tenant(actor, change).await
    }

    async fn suspend_tenant(&self, request: Request<SuspendTenantRequest>) -> Answer<Tenant> {
        let actor = self.actor(&request)?;
        let tenant = convert::tenant(&request.get_ref().tenant)?;
        self.change_tenant(actor, Change::Suspend(tenant)).await
    }

    async fn resume_tenant(&self, request: Request<ResumeTenantRequest>) -> Answer<Tenant> {
        let actor = self.actor(&request)?;
        let tenant = convert::tenant(&request.get_ref().tenant)?;
        self.change_tenant(actor, Change::Resume(tenant)).await
    }

    async fn make_key(&self, request: Request<MakeKeyRequest>) -> Answer<MakeKeyResponse> {
        let actor = self.actor(&request)?;
        let request = request.into_inner();
        let name = convert::optional(&request.name, "name", KeyName::new)?;
        let expires_at = convert::time(request.expires_at, "expires_at")?;
        let change = Change::Make {
            tenant: convert::tenant(&request.tenant)?,
            plan: None,
            key: new_key(name, expires_at)?,
        };
        let made = self.change_key(actor, now()?, change).await?;
        Ok(Response::new(MakeKeyResponse {
            key: Some(made.key),
            secret: made.secret,
            directory_version: made.file.version,
        }))
    }

    async fn rotate_key(&self, request: Request<RotateKeyRequest>) -> Answer<RotateKeyResponse> {
        let actor = self.actor(&request)?;
        let request = request.into_inner();
        let (now, old) = (now()?, convert::key(&request.key)?);
        let name = convert::optional(&request.name, "name", KeyName::new)?;
        let expires_at = convert::time(request.expires_at, "expires_at")?;
        if expires_at.is_some() && request.never_expires {
            let message = "never_expires: must be false where there is expires_at";
            return Err(Status::invalid_argument(message));
        }
        let change = Change::Rotate {
            tenant: convert::tenant(&request.tenant)?,
            key: old.clone(),
            until: convert::after(request.grace, now)?,
            successor: new_key(name, expires_at)?,
            never_expires: request.never_expires,
        };
        let made = self.change_key(actor, now, change).await?;
        Ok(Response::new(RotateKeyResponse {
            key: Some(made.key),
            secret: made.secret,
            replaced: Some(convert::key_of(&made.file, &made.tenant, &old, now)?),
            directory_version: made.file.version,
        }))
    }

    async fn revoke_key(&self, request: Request<RevokeKeyRequest>) -> Answer<RevokeKeyResponse> {
        let actor = self.actor(&request)?;
        let change = Change::Revoke(convert::which(request.into_inner())?);
        let now = now()?;
        let Changed { done, file } = self.change(actor, now, change).await?;
        let Some(key) = done.key else {
            return Err(Status::internal("no key was revoked"));
        };
        Ok(Response::new(RevokeKeyResponse {
            key: Some(convert::key_of(&file, &done.tenant, &key, now)?),
            tenant: done.tenant.to_string(),
            directory_version: file.version,
        }))
    }
}
