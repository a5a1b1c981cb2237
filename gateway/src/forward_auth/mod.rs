//! How do other proxies ask whether a request may pass?
