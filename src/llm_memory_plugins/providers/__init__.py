"""What models are behind: one provider a file, each implementing `ChatModel` or `Summariser`."""
