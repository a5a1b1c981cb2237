mod layer;
mod metadata;
