import java.io.IOException;
import java.io.InputStream;
import java.net.Authenticator;
import java.net.InetSocketAddress;
import java.net.PasswordAuthentication;
import java.net.Proxy;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * A client that prints what the library says:
 * Client socks LISTENER USER PASSWORD TARGET, or
 * Client tls LISTENER VERSION ALPN CA [CERTIFICATE KEY].
 */
public class Client {
  static final int PATIENCE = 15_000; // milliseconds

  public static void main(String[] args) throws Exception {
    try (Socket socket = args[0].equals("socks") ? socks(args) : tls(args)) {
      socket.getOutputStream().write('\n');
      socket.getInputStream().read();
      System.out.println("it came through");
    } catch (IOException e) {
      System.out.println(e);
    }
  }

  static InetSocketAddress address(String text) {
    int colon = text.lastIndexOf(':');
    return new InetSocketAddress(text.substring(0, colon), Integer.parseInt(text.substring(colon + 1)));
  }

  static Socket socks(String[] args) throws IOException {
    if (!args[2].isEmpty()) {
      Authenticator.setDefault(new Authenticator() {
        @Override
        protected PasswordAuthentication getPasswordAuthentication() {
          return new PasswordAuthentication(args[2], args[3].toCharArray());
        }
      });
    }
    Socket socket = new Socket(new Proxy(Proxy.Type.SOCKS, address(args[1])));
    socket.setSoTimeout(PATIENCE);
    socket.connect(address(args[4]), PATIENCE);
    return socket;
  }

  static Socket tls(String[] args) throws Exception {
    KeyStore trusted = empty();
    trusted.setCertificateEntry("ca", certificate(args[4]));
    TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
    trust.init(trusted);
    KeyStore own = empty();
    if (args.length > 5) {
      own.setKeyEntry("own", key(args[6]), new char[0], new Certificate[] {certificate(args[5])});
    }
    KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
    keys.init(own, new char[0]);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
    SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket();
    socket.setSoTimeout(PATIENCE);
    socket.setEnabledProtocols(new String[] {args[2]});
    SSLParameters parameters = socket.getSSLParameters();
    parameters.setApplicationProtocols(args[3].isEmpty() ? new String[0] : new String[] {args[3]});
    socket.setSSLParameters(parameters);
    socket.connect(address(args[1]), PATIENCE);
    return socket;
  }

  static KeyStore empty() throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    store.load(null, null);
    return store;
  }

  static Certificate certificate(String file) throws Exception {
    try (InputStream in = Files.newInputStream(Path.of(file))) {
      return CertificateFactory.getInstance("X.509").generateCertificate(in);
    }
  }

  static PrivateKey key(String file) throws Exception {
    String base64 = Files.readString(Path.of(file)).replaceAll("-----[A-Z ]+-----", "");
    return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(base64)));
  }
}
