//! The host's shared data, as the core's followers use it.

use weir_plugin_host::shared::{self, Change};
use weir_tenant_identification_core::board::Board;
use weir_wire::host::HostKind;

/// Shared by all workers of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct HostBoard(pub HostKind);

impl Board for HostBoard {
    fn read(&self, key: &str) -> Option<Vec<u8>> {
        shared::read(key)
    }

    fn change<T>(
        &self,
        key: &str,
        decide: impl FnMut(Option<&[u8]>) -> (T, Option<Vec<u8>>),
    ) -> Option<T> {
        match shared::change(self.0, key, decide) {
            Change::Done(outcome) => Some(outcome),
            Change::Contended => None,
        }
    }
}
