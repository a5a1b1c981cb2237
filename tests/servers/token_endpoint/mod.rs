mod layer;
