//! Finding a grid and taking hold of it.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use sheaf_api::Api;
use sheaf_core::limits;

use crate::{
    error::GridError,
    grid::Grid,
    settings::{Place, Settings, Token},
    transport::Transport,
};

/// Connects to the grid that the environment, `sheaf.toml` or the user's settings choose; without any, to the one in this
/// process, in the user's data directory.
///
/// `SHEAF_GRID` is `embedded`, `memory`, a directory, a URL (with `SHEAF_TOKEN` or `SHEAF_TOKEN_FILE`, or without a token when
/// it is the API of a grid on AWS), or `aws:` and the name of a grid on AWS, to use it with one's own rights and without its
/// API; a `sheaf.toml` says the same under `[grid]` as `url`, `directory` or `memory`. If another process serves the grid of
/// the directory (`sheaf up`), this connects to it.
pub async fn connect() -> Result<Grid, GridError> {
    builder().connect().await
}

/// Options for [`connect`], over those of the environment and the files.
pub fn builder() -> Builder {
    ConnectOptions::builder()
}

/// What a program says of the grid it wants; the rest comes from the environment, files and defaults.
#[derive(Clone, Default, bon::Builder)]
#[builder(builder_type(name = Builder, vis = "pub"), state_mod(name = builder_state, vis = "pub"), on(PathBuf, into))]
pub struct ConnectOptions {
    /// As `SHEAF_GRID`: `embedded`, `memory`, a directory, a URL, or `aws:` and a name.
    #[builder(into)]
    grid: Option<String>,
    /// The data directory of a grid in this process. Goes before `grid`.
    directory: Option<PathBuf>,
    /// A grid in this process that keeps everything in memory. Goes before both.
    #[builder(default)]
    memory: bool,
    /// The token of a remote grid.
    #[builder(into, name = token)]
    token_given: Option<Arc<str>>,
    /// The file that holds the token of a remote grid.
    token_file: Option<PathBuf>,
    /// How many tasks a grid in this process runs at once: as many as there are processors unless said otherwise; 0 for
    /// none, to only look and submit.
    pub(crate) slots: Option<u32>,
    /// Whether an acknowledgement of a grid in this process means that it would survive a power cut (the default), rather
    /// than only the end of the process.
    pub(crate) durable: Option<bool>,
    /// Bytes that all jobs of the handle together may have submitted and not yet acknowledged. At least 1;
    /// [`limits::UNACKNOWLEDGED_BYTES_DEFAULT`] by default. A chunk larger than all of it goes alone.
    pub(crate) unacknowledged_bytes: Option<usize>,
    /// How long a chunk waits for more tasks; [`limits::LINGER_MS_DEFAULT`] by default.
    pub(crate) linger: Option<Duration>,
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token();
        let Self { grid, directory, memory, slots, durable, unacknowledged_bytes, linger, .. } = self;
        f.debug_struct("ConnectOptions")
            .field("grid", grid)
            .field("directory", directory)
            .field("memory", memory)
            .field("token", &token)
            .field("slots", slots)
            .field("durable", durable)
            .field("unacknowledged_bytes", unacknowledged_bytes)
            .field("linger", linger)
            .finish()
    }
}

impl ConnectOptions {
    pub(crate) fn place(&self, parse: &dyn Fn(String) -> Place) -> Option<Place> {
        match (self.memory, &self.directory) {
            (true, _) => Some(Place::Memory),
            (false, Some(directory)) => Some(Place::Directory(directory.clone())),
            (false, None) => self.grid.clone().map(parse),
        }
    }

    pub(crate) fn token(&self) -> Option<Token> {
        match (&self.token_given, &self.token_file) {
            (Some(token), _) => Some(Token::Given(Arc::clone(token))),
            (None, file) => file.clone().map(Token::File),
        }
    }

    /// Connects.
    pub async fn connect(&self) -> Result<Grid, GridError> {
        let settings = Settings::resolve(self)?;
        let client =
            ClientOptions { unacknowledged_bytes: settings.unacknowledged_bytes.value, linger: settings.linger.value };
        tracing::debug!(grid = %settings.place.value, origin = %settings.place.origin, "connecting");
        let transport = match settings.place.value.clone() {
            Place::Url(url) => remote(&url, &settings.token.value).await?,
            // Boxed, as the futures of the AWS SDK are so deep that compilers give up on what is built around them.
            Place::Aws(name) => Box::pin(by_name(&name)).await?,
            Place::Memory => open(None, &settings).await?,
            Place::Directory(directory) => open(Some(directory), &settings).await?,
        };
        Ok(Grid::new(transport, client))
    }

    /// Connects to a grid on AWS by its name, with a configuration of the AWS SDK that the program has. What these options
    /// say of which grid does not matter.
    #[cfg(feature = "aws")]
    pub async fn connect_aws(&self, config: &crate::aws::SdkConfig, name: &str) -> Result<Grid, GridError> {
        Ok(Grid::new(crate::aws::transport(config, name).await?, self.client()))
    }

    /// A handle with these options on a grid behind any implementation of the calls. See [`Grid::over`].
    pub fn over(&self, api: impl Api) -> Grid {
        Grid::new(Transport::other(api), self.client())
    }

    fn client(&self) -> ClientOptions {
        let default = ClientOptions::default();
        ClientOptions {
            unacknowledged_bytes: self.unacknowledged_bytes.unwrap_or(default.unacknowledged_bytes),
            linger: self.linger.unwrap_or(default.linger),
        }
    }
}

impl<S: builder_state::IsComplete> Builder<S> {
    /// Connects.
    pub async fn connect(self) -> Result<Grid, GridError> {
        self.build().connect().await
    }

    /// See [`ConnectOptions::over`].
    pub fn over(self, api: impl Api) -> Grid {
        self.build().over(api)
    }
}

/// The options of a handle, resolved.
#[derive(Debug, Clone)]
pub(crate) struct ClientOptions {
    pub(crate) unacknowledged_bytes: usize,
    pub(crate) linger: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        let linger = Duration::from_millis(limits::LINGER_MS_DEFAULT);
        Self { unacknowledged_bytes: limits::UNACKNOWLEDGED_BYTES_DEFAULT, linger }
    }
}

#[cfg(feature = "remote")]
async fn remote(url: &str, token: &Token) -> Result<Transport, GridError> {
    let token = token.clone();
    let token = tokio::task::spawn_blocking(move || token.read()).await;
    let token = token.map_err(|_| GridError::Closed { what: "its token was read".into() })??;
    if let Some(feature) = crate::remote::missing_feature(url, &token) {
        return Err(crate::settings::SettingsError::Unbuilt { feature, place: url.into() }.into());
    }
    let remote = crate::remote::Remote::new(url, &token)?;
    // One call now, so that a wrong address or token is told here and not with the first task.
    remote.clone().with_retry_ms_max(crate::limits::CONNECT_RETRY_MS).grid().await?;
    Ok(Transport::Remote(remote))
}

#[cfg(not(feature = "remote"))]
async fn remote(url: &str, _token: &Token) -> Result<Transport, GridError> {
    Err(crate::settings::SettingsError::Unbuilt { feature: "remote", place: url.into() }.into())
}

#[cfg(feature = "aws")]
async fn by_name(name: &str) -> Result<Transport, GridError> {
    let config = crate::aws::load_config().await;
    Ok(crate::aws::transport(&config, name).await?)
}

#[cfg(not(feature = "aws"))]
async fn by_name(name: &str) -> Result<Transport, GridError> {
    Err(crate::settings::SettingsError::Unbuilt { feature: "aws", place: Place::Aws(name.into()).to_string() }.into())
}

#[cfg(feature = "embedded")]
async fn open(directory: Option<PathBuf>, settings: &Settings) -> Result<Transport, GridError> {
    use sheaf_local::{GridOptions, OpenError};
    use tokio::time::{Duration, Instant, sleep};

    let default = GridOptions::default();
    let slots = settings.slots.value.map_or(default.slots, |slots| slots as usize);
    let place = directory.as_ref().map_or_else(|| "memory".into(), |directory| directory.display().to_string());
    let options = GridOptions { directory, slots, durable: settings.durable.value, ..default };
    let until = Instant::now() + Duration::from_millis(crate::limits::GRID_FILE_WAIT_MS);
    loop {
        match sheaf_local::Grid::open(options.clone()).await {
            Ok(grid) => return Ok(Transport::Embedded(grid)),
            Err(OpenError::InUse { address: Some(address), .. }) => {
                return remote(&address.url, &Token::File(address.token_file)).await;
            }
            // Whoever has it may be about to say where it serves it, or about to end.
            Err(OpenError::InUse { .. }) if Instant::now() < until => sleep(Duration::from_millis(50)).await,
            Err(error) => {
                let reason = error.to_string();
                return Err(GridError::Open { place, reason, in_use: matches!(error, OpenError::InUse { .. }) });
            }
        }
    }
}

#[cfg(not(feature = "embedded"))]
async fn open(directory: Option<PathBuf>, _settings: &Settings) -> Result<Transport, GridError> {
    /// What `sheaf up` writes into its data directory.
    #[derive(serde::Deserialize)]
    struct Address {
        url: String,
        token_file: PathBuf,
    }
    let unbuilt = |place: String| crate::settings::SettingsError::Unbuilt { feature: "embedded", place };
    let Some(directory) = directory else { return Err(unbuilt("a grid in memory".into()).into()) };
    let address = std::fs::read(directory.join("grid.json")).ok();
    let address: Option<Address> = address.and_then(|json| serde_json::from_slice(&json).ok());
    match address {
        Some(address) => remote(&address.url, &Token::File(address.token_file)).await,
        None => Err(unbuilt(format!("the grid in {}", directory.display())).into()),
    }
}
