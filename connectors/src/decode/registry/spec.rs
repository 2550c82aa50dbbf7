//! Where the schemas are.
//!
//! *In*: `registry:` of a source. *Out*: a [`Registry`]. *Never*: a secret in a log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `registry:` of a source.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Address of a Schema Registry (`http://host:8081`), or of what speaks as one (Karapace, Apicurio's
    /// `/apis/ccompat/v7`).
    pub url: String,
    /// User and password, in the form `user:password`.
    #[serde(skip)]
    pub login: Option<String>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = self.login.as_ref().map(|_| "***");
        f.debug_struct("Registry").field("url", &self.url).field("login", &login).finish()
    }
}
