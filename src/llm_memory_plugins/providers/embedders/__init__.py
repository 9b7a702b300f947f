"""What turns texts into vectors: one provider a file, each implementing `Embedder`. They need numpy (extra `local`)."""
